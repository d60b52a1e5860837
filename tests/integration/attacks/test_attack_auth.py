"""AUTH: what a guesser learns is nothing, and what a liar gains is nothing."""

import base64
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest
from harness.another import another
from harness.appliance import Appliance
from harness.clients import Account, Endpoint
from harness.dialogue import Dialogue

WRONG = b"535 authup authorization failed (#5.7.0)"
POP3_WRONG = b"-ERR authup authorization failed"
MALFORMED = b"501 authup malformed auth input (#5.5.4)"
CANCELLED = b"501 authup auth exchange cancelled (#5.0.0)"


def b64(raw: bytes) -> bytes:
    """Return raw in base64."""
    return base64.b64encode(raw)


def secure(at: Endpoint, service: str = "submissions") -> Dialogue:
    """Return a dialogue inside TLS that has said EHLO where there is one."""
    dialogue = Dialogue(at, service)
    if service in ("submission", "pop3"):
        dialogue.start_tls()
    if not dialogue.pop3:
        dialogue.say(b"EHLO client.example")
    return dialogue


def plain(account: Account, authorize: str = "") -> bytes:
    """Return the AUTH PLAIN line that logs account in."""
    return b"AUTH PLAIN " + b64(f"{authorize}\0{account.address}\0{account.password}".encode())


def refused_after(at: Endpoint, service: str, user: str) -> float:
    """Try a wrong password, which must be refused as any; return the seconds it took."""
    with secure(at, service) as dialogue:
        if dialogue.pop3:
            dialogue.say(b"USER " + user.encode())
            line, refused = b"PASS wrong", POP3_WRONG
        else:
            line, refused = b"AUTH PLAIN " + b64(f"\0{user}\0wrong".encode()), WRONG
        began = time.perf_counter()
        assert dialogue.say(line) == [refused]
        return time.perf_counter() - began


@pytest.mark.parametrize("service", ["submissions", "pop3s"])
def test_unknown_user_and_wrong_password_take_the_same_time(
    service: str, at: Endpoint, account: Account
) -> None:
    known, unknown = [], []
    for _ in range(50):
        known.append(refused_after(at, service, account.address))
        unknown.append(refused_after(at, service, "nobody@example.test"))
    ratio = statistics.median(known) / statistics.median(unknown)
    # An unknown user answered without the cost of a hash would be ten times quicker.
    assert 0.6 < ratio < 1.7, (statistics.median(known), statistics.median(unknown))


# Of "brought along", made by crypt(3), at costs that differ by a factor of ten and more.
BROUGHT = "brought along"
CRYPTED = {
    "sha512": "$6$rounds=5000$attackattack$6ylzMwEs1Aoh5iO5dA1zRkgyOUiAbUduoFFmsEQQRjWr2BZGqEvIfWny"
    "W/Jj/DL0x6ZDJRI3CsfUXy4znRlvo/",
    "yescrypt": "$y$j9T$abcdefghijklmnop$Smh4Xe4vLuKTTPmbtc8BxwPSATsHypFagaKK/HN2Yx4",
    "bcrypt": "$2b$08$abcdefghijklmnopqrstuuTu2p/3h0zWmBdnydEyspCtOF6zU9KIC",
}


@pytest.fixture(scope="module")
def migrated(appliance: Appliance) -> Iterator[Appliance]:
    """An appliance whose accounts have brought their hashes along."""
    with another(appliance, POSTERN_GUARD_ALLOW="0.0.0.0/0") as running:
        for kind, hashed in CRYPTED.items():
            status, printed = running.postern(
                "user", "add", "--hash", f"{kind}@example.test", data=hashed.encode() + b"\n"
            )
            assert status == 0, printed
        running.add_account("argon2@example.test")
        yield running


def five_refusals(at: Endpoint, user: str) -> list[float]:
    """Try all the wrong passwords that a connection has room for; return the seconds of each."""
    line = b"AUTH PLAIN " + b64(f"\0{user}\0wrong".encode())
    seconds = []
    with secure(at) as dialogue:
        for _ in range(5):
            began = time.perf_counter()
            assert dialogue.say(line) == [WRONG]
            seconds.append(time.perf_counter() - began)
    return seconds


def test_imported_hashes_do_not_tell_by_the_time_who_exists(migrated: Appliance) -> None:
    at = migrated.endpoint
    names = [*CRYPTED, "argon2", "nobody"]
    users = [f"{name}@example.test" for name in names] * 10
    with ThreadPoolExecutor(10) as pool:
        seconds = list(pool.map(lambda user: five_refusals(at, user), users))
    medians = {
        name: statistics.median(chain.from_iterable(seconds[number :: len(names)]))
        for number, name in enumerate(names)
    }
    # SHA-512 takes a tenth of what argon2 takes for nobody.
    assert max(medians.values()) / min(medians.values()) < 1.7, medians


@pytest.mark.parametrize("kind", CRYPTED)
def test_imported_hashes_let_their_owners_in(kind: str, migrated: Appliance) -> None:
    with secure(migrated.endpoint) as dialogue:
        dialogue.log_in(Account(f"{kind}@example.test", BROUGHT))


@pytest.mark.parametrize(("service", "tries"), [("submissions", 5), ("submission", 5)])
def test_after_the_last_try_the_connection_ends(
    service: str, tries: int, at: Endpoint, account: Account
) -> None:
    with secure(at, service) as dialogue:
        for _ in range(tries - 1):
            assert dialogue.say(b"AUTH PLAIN " + b64(b"\0a@example.test\0wrong")) == [WRONG]
        # Right or not, and pipelined or not: after the last there is no other.
        last = b"AUTH PLAIN " + b64(b"\0a@example.test\0wrong") + b"\r\n"
        dialogue.send(last + plain(account) + b"\r\n")
        assert dialogue.reply() == [WRONG]
        assert dialogue.rest() == b""


@pytest.mark.parametrize("service", ["pop3", "pop3s"])
def test_pop3_has_one_try(service: str, at: Endpoint, account: Account) -> None:
    with secure(at, service) as dialogue:
        user = b"USER " + account.address.encode() + b"\r\n"
        right = b"PASS " + account.password.encode() + b"\r\n"
        dialogue.send(user + b"PASS wrong\r\n" + user + right)
        assert dialogue.reply()[0][:3] == b"+OK"
        assert dialogue.reply() == [POP3_WRONG]
        assert dialogue.rest() == b""


@pytest.mark.parametrize("service", ["submission", "pop3"])
def test_no_password_is_asked_for_before_tls(service: str, at: Endpoint, account: Account) -> None:
    with Dialogue(at, service) as dialogue:
        if dialogue.pop3:
            for line in (b"USER " + account.address.encode(), b"PASS " + account.password.encode()):
                assert dialogue.say(line) == [b"-ERR authup Must start TLS first"]
        else:
            assert not [line for line in dialogue.say(b"EHLO client.example") if b"AUTH" in line]
            for line in (b"AUTH LOGIN", b"AUTH PLAIN", plain(account)):
                assert dialogue.say(line) == [b"530 authup Must start TLS first (#5.7.0)"]


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


@pytest.mark.parametrize("line", [b"PASS", b"PASS ", b"PASS a\0b", b"PASS \0"])
def test_pop3_refuses_a_password_that_is_none(line: bytes, at: Endpoint, account: Account) -> None:
    with Dialogue(at, "pop3s") as dialogue:
        dialogue.say(b"USER " + account.address.encode())
        assert dialogue.code(line) == b"-ERR"


@pytest.mark.parametrize(
    "line",
    [b"RETR 0", b"RETR -1", b"RETR 2", b"RETR", b"RETR 1 2 3", b"RETR 99999999999999999999",
     b"RETR ../1", b"TOP 1", b"TOP 1 -1", b"TOP 1 x", b"DELE 0", b"DELE 18446744073709551617",
     b"LIST 0", b"UIDL 0", b"UIDL ..", b"\xff\xfe", b"XTND", b"APOP a b", b"AUTH PLAIN", b"STLS"],
)  # fmt: skip
def test_no_line_of_a_pop3_session_does_harm(line: bytes, pop3_session: Dialogue) -> None:
    assert pop3_session.code(line) == b"-ERR"
    assert pop3_session.code(b"NOOP") == b"+OK"
    assert pop3_session.say(b"STAT") == [b"+OK 0 0"]


@pytest.fixture(scope="module")
def pop3_session(appliance: Appliance) -> Iterator[Dialogue]:
    """A session with an empty mailbox, the same one for every line."""
    with Dialogue(appliance.endpoint, "pop3s") as dialogue:
        dialogue.log_in(appliance.add_account())
        yield dialogue


def test_a_second_login_to_pop3_is_refused(
    appliance: Appliance, at: Endpoint, account: Account
) -> None:
    other = appliance.add_account()
    with Dialogue(at, "pop3s") as dialogue:
        dialogue.log_in(account)
        assert dialogue.code(b"USER " + other.address.encode()) == b"-ERR"
        assert dialogue.code(b"PASS " + other.password.encode()) == b"-ERR"
        assert dialogue.code(b"NOOP") == b"+OK"


def test_commands_pipelined_behind_pass_never_reach_the_session(
    at: Endpoint, account: Account
) -> None:
    with Dialogue(at, "pop3s") as dialogue:
        dialogue.say(b"USER " + account.address.encode())
        dialogue.send(b"PASS " + account.password.encode() + b"\r\nSTAT\r\n")
        assert dialogue.reply()[0][:3] == b"+OK"
        assert dialogue.silent(0.3)
        assert dialogue.code(b"NOOP") == b"+OK"


def test_a_login_by_case_is_the_same_account(at: Endpoint, account: Account) -> None:
    with secure(at) as dialogue:
        shouted = Account(account.address.upper(), account.password)
        assert dialogue.code(plain(shouted)) == b"235"
