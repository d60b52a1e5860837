"""AUTH: what a guesser learns is nothing, and what a liar gains is nothing."""

import base64
import statistics
import time

import pytest
from harness.appliance import Appliance
from harness.clients import Account, Endpoint
from harness.dialogue import Dialogue

WRONG = b"535 authup authorization failed (#5.7.0)"
MALFORMED = b"501 authup malformed auth input (#5.5.4)"
CANCELLED = b"501 authup auth exchange cancelled (#5.0.0)"


def b64(raw: bytes) -> bytes:
    """Return raw in base64."""
    return base64.b64encode(raw)


def secure(at: Endpoint, service: str = "submissions") -> Dialogue:
    """Return a dialogue inside TLS that has said EHLO."""
    dialogue = Dialogue(at, service)
    dialogue.say(b"EHLO client.example")
    return dialogue


def plain(account: Account, authorize: str = "") -> bytes:
    """Return the AUTH PLAIN line that logs account in."""
    return b"AUTH PLAIN " + b64(f"{authorize}\0{account.address}\0{account.password}".encode())


def test_unknown_user_and_wrong_password_take_the_same_time(at: Endpoint, account: Account) -> None:
    def seconds(user: str) -> float:
        with secure(at) as dialogue:
            began = time.perf_counter()
            assert dialogue.say(b"AUTH PLAIN " + b64(f"\0{user}\0wrong".encode())) == [WRONG]
            return time.perf_counter() - began

    known, unknown = [], []
    for _ in range(50):
        known.append(seconds(account.address))
        unknown.append(seconds("nobody@example.test"))
    ratio = statistics.median(known) / statistics.median(unknown)
    # An unknown user answered without the cost of a hash would be ten times quicker.
    assert 0.6 < ratio < 1.7, (statistics.median(known), statistics.median(unknown))


@pytest.mark.parametrize("opening", [b"AUTH LOGIN", b"AUTH PLAIN", b"AUTH LOGIN dXNlcg=="])
def test_a_cancelled_exchange_gets_one_reply_and_leaves_a_clean_state(
    opening: bytes, at: Endpoint, account: Account
) -> None:
    with secure(at) as dialogue:
        assert dialogue.code(opening) == b"334"
        assert dialogue.say(b"*") == [CANCELLED]
        assert dialogue.silent(0.2)
        assert dialogue.say(b"NOOP") == [b"250 ok"]
        assert dialogue.code(plain(account)) == b"235"


@pytest.mark.parametrize(
    "response",
    [
        b"=",
        b"====",
        b"!!!!",
        b"AGE",
        b"AGEAYg",
        b"AGEAYg=",
        b"AGEA\xffYg==",
        b"AGEAYg==AGEAYg==",
        b"AGEAYg== x",
        b"AA==",
        b"AAAA",
        b"AGEA",
        b"AABi",
        b"YQ==",
    ],
)
def test_odd_base64_is_a_clean_501(response: bytes, at: Endpoint, account: Account) -> None:
    with secure(at) as dialogue:
        assert dialogue.say(b"AUTH PLAIN " + response) == [MALFORMED]
        assert dialogue.code(b"AUTH PLAIN") == b"334"
        assert dialogue.say(response) == [MALFORMED]
        assert dialogue.silent(0.1)
        assert dialogue.code(plain(account)) == b"235"


def test_an_empty_line_in_the_exchange_is_a_501(at: Endpoint, account: Account) -> None:
    with secure(at) as dialogue:
        for opening in (b"AUTH PLAIN", b"AUTH LOGIN"):
            assert dialogue.code(opening) == b"334"
            assert dialogue.say(b"") == [MALFORMED]
        assert dialogue.code(plain(account)) == b"235"


@pytest.mark.parametrize(
    "user", [b"%s%n%s", b"../../etc/passwd", b"\xff\xfe", b"a b", b"$(id)", b"x" * 4000, b"\r\n"]
)
def test_odd_user_names_are_only_wrong(user: bytes, at: Endpoint) -> None:
    with secure(at) as dialogue:
        reply = dialogue.say(b"AUTH PLAIN " + b64(b"\0" + user + b"\0password"))
        assert reply in ([WRONG], [MALFORMED])
        assert dialogue.say(b"NOOP") == [b"250 ok"]


def test_the_authorization_identity_gives_nothing(
    appliance: Appliance, at: Endpoint, account: Account
) -> None:
    other = appliance.add_account()
    with secure(at) as dialogue:
        assert dialogue.code(plain(account, authorize=other.address)) == b"235"
        assert dialogue.code(b"MAIL FROM:<" + other.address.encode() + b">") == b"553"


def test_a_second_auth_is_refused(at: Endpoint, account: Account) -> None:
    with secure(at) as dialogue:
        assert dialogue.code(plain(account)) == b"235"
        assert dialogue.say(plain(account))[-1][:1] == b"5"
        assert dialogue.code(b"NOOP") == b"250"


def test_auth_is_not_offered_after_auth(at: Endpoint, account: Account) -> None:
    with secure(at) as dialogue:
        assert dialogue.code(plain(account)) == b"235"
        lines = dialogue.say(b"EHLO client.example")
        assert not [line for line in lines if b"AUTH" in line or b"STARTTLS" in line]


def test_auth_in_a_transaction_changes_nothing(at: Endpoint, account: Account) -> None:
    address = account.address.encode()
    with secure(at) as dialogue:
        assert dialogue.code(plain(account)) == b"235"
        dialogue.say(b"EHLO client.example")
        assert dialogue.code(b"MAIL FROM:<" + address + b">") == b"250"
        assert dialogue.say(plain(account))[-1][:1] == b"5"
        assert dialogue.code(b"RCPT TO:<" + address + b">") == b"250"


def test_commands_pipelined_behind_auth_never_reach_the_session(
    at: Endpoint, account: Account
) -> None:
    with secure(at) as dialogue:
        dialogue.send(plain(account) + b"\r\nMAIL FROM:<" + account.address.encode() + b">\r\n")
        assert dialogue.reply()[-1].startswith(b"235 ")
        assert dialogue.silent(0.3)
        assert dialogue.code(b"RCPT TO:<" + account.address.encode() + b">") == b"503"


def test_other_mechanisms_are_refused(at: Endpoint) -> None:
    with secure(at) as dialogue:
        for mechanism in (b"CRAM-MD5", b"DIGEST-MD5", b"XOAUTH2", b"EXTERNAL =", b"", b"plainx"):
            assert dialogue.say(b"AUTH " + mechanism) == [
                b"504 authup auth type unimplemented (#5.5.1)"
            ]


@pytest.mark.parametrize(
    "password",
    ["with space", " leading", "trailing ", "100%s%n%s", "grün-€-groß", "a" * 200, '"\\"\\"\\"\\'],
)
def test_pop3_takes_every_password_as_it_is(
    password: str, appliance: Appliance, at: Endpoint, account: Account
) -> None:
    status, printed = appliance.postern(
        "user", "passwd", account.address, data=password.encode() + b"\n"
    )
    assert status == 0, printed
    with Dialogue(at, "pop3s") as dialogue:
        dialogue.say(b"USER " + account.address.encode())
        assert dialogue.code(b"PASS " + password.encode()) == b"+OK"
    with Dialogue(at, "pop3s") as dialogue:
        dialogue.say(b"USER " + account.address.encode())
        assert dialogue.code(b"PASS " + password.strip().encode() + b"x") == b"-ERR"


@pytest.mark.parametrize("line", [b"USER a\0b", b"USER", b"PASS", b"PASS x", b"USER ", b"\0"])
def test_pop3_refuses_odd_input_before_login(line: bytes, at: Endpoint) -> None:
    with Dialogue(at, "pop3s") as dialogue:
        assert dialogue.code(line) == b"-ERR"


def test_a_login_by_case_is_the_same_account(at: Endpoint, account: Account) -> None:
    with secure(at) as dialogue:
        shouted = Account(account.address.upper(), account.password)
        assert dialogue.code(plain(shouted)) == b"235"
