"""Addresses, parameters and verbs that have fooled other servers."""

from collections.abc import Iterator

import pytest
from harness.appliance import Appliance
from harness.clients import Account, Endpoint
from harness.dialogue import Dialogue

RELAY_TRICKS = [
    b"<@example.test:victim@elsewhere.example>",
    b"<@example.test,@relay.example:victim@elsewhere.example>",
    b"<victim%elsewhere.example@relay.example>",
    b'<"victim@elsewhere.example"@relay.example>',
    b"<elsewhere.example!victim@relay.example>",
    b"<victim@[127.0.0.1]>",
    b"<victim@[IPv6:::1]>",
    b"<victim@[192.0.2.1]>",
    b"<victim@127.0.0.1>",
    b"<victim@2130706433>",
    b"<victim@example.test.>",
    b"<victim@.example.test>",
    b"<victim@example.test@elsewhere.example>",
    b"<victim@elsewhere.example\0@example.test>",
    b"<victim@elsewhere.example\x0b@example.test>",
]


def mx(at: Endpoint) -> Dialogue:
    """Return a dialogue on the MX with a sender given."""
    dialogue = Dialogue(at, "mx")
    dialogue.say(b"EHLO outside.example")
    assert dialogue.code(b"MAIL FROM:<someone@outside.example>") == b"250"
    return dialogue


@pytest.mark.parametrize("recipient", RELAY_TRICKS)
def test_no_form_of_address_makes_it_relay(recipient: bytes, at: Endpoint) -> None:
    with mx(at) as dialogue:
        code = dialogue.code(b"RCPT TO:" + recipient)
        assert code[:1] in (b"5", b"4"), code
        assert code != b"502" or b"\0" in recipient


@pytest.mark.parametrize(
    "form",
    [
        b"RCPT TO:<%b>",
        b"RCPT TO: <%b>",
        b"rcpt to:<%b>",
        b"RCPT TO:<@relay.example:%b>",
        b"RCPT TO:%b",
    ],
)
def test_forms_of_a_good_address_are_taken(form: bytes, at: Endpoint, account: Account) -> None:
    with mx(at) as dialogue:
        assert dialogue.code(form % account.address.encode()) == b"250"


def test_a_quoted_local_part_is_the_same_mailbox(at: Endpoint, account: Account) -> None:
    local, domain = account.address.encode().split(b"@")
    with mx(at) as dialogue:
        assert dialogue.code(b'RCPT TO:<"' + local + b'"@' + domain.upper() + b">") == b"250"


@pytest.mark.parametrize("size", [901, 1004, 4000])
def test_an_address_that_is_too_long_is_refused(size: int, at: Endpoint) -> None:
    with mx(at) as dialogue:
        reply = dialogue.say(b"RCPT TO:<" + b"a" * size + b"@example.test>")
        assert reply[-1][:1] == b"5"
        assert dialogue.code(b"NOOP") == b"250"


@pytest.mark.parametrize(
    "parameter",
    [b"SMTPUTF8", b"RET=FULL", b"ENVID=x", b"BODY=BINARYMIME", b"AUTH=<>", b"MT-PRIORITY=3"],
)
def test_parameters_that_are_not_offered_are_refused(parameter: bytes, at: Endpoint) -> None:
    with Dialogue(at, "mx") as dialogue:
        offered = b"\n".join(dialogue.say(b"EHLO outside.example"))
        for word in (b"SMTPUTF8", b"DSN", b"CHUNKING", b"BINARYMIME"):
            assert word not in offered
        assert dialogue.code(b"MAIL FROM:<a@outside.example> " + parameter) == b"555"


def test_dsn_parameters_of_rcpt_are_refused(at: Endpoint, account: Account) -> None:
    with mx(at) as dialogue:
        line = b"RCPT TO:<" + account.address.encode() + b"> NOTIFY=SUCCESS"
        assert dialogue.code(line) == b"555"


def test_the_bytes_of_bdat_are_never_commands(at: Endpoint, account: Account) -> None:
    with mx(at) as dialogue:
        assert dialogue.code(b"RCPT TO:<" + account.address.encode() + b">") == b"250"
        chunk = b"RSET\r\nMAIL FROM:<smuggled@outside.example>\r\nQUIT\r\n"
        dialogue.send(b"BDAT %d LAST\r\n" % len(chunk) + chunk + b"NOOP\r\nQUIT\r\n")
        assert dialogue.reply() == [b"502 unimplemented (#5.5.1)"]
        assert dialogue.reply() == [b"250 ok"]
        assert dialogue.reply()[0].startswith(b"221 ")
        assert dialogue.rest() == b""


@pytest.mark.parametrize("size", [b"", b" x", b" -1", b" 99999999999999999999"])
def test_bdat_without_a_usable_size_ends_the_connection(size: bytes, at: Endpoint) -> None:
    with mx(at) as dialogue:
        dialogue.send(b"BDAT" + size + b"\r\nMAIL FROM:<smuggled@outside.example>\r\n")
        assert dialogue.reply()[0][:1] == b"5"
        assert dialogue.rest() == b""


def test_a_message_over_the_limit_is_refused_at_mail(at: Endpoint) -> None:
    with Dialogue(at, "mx") as dialogue:
        offered = dialogue.say(b"EHLO outside.example")
        (size,) = [int(line[9:]) for line in offered if line[4:9] == b"SIZE "]
        assert dialogue.code(b"MAIL FROM:<a@outside.example> SIZE=%d" % (size + 1)) == b"552"
        assert dialogue.code(b"MAIL FROM:<a@outside.example> SIZE=%d" % (size - 1000)) == b"250"


@pytest.mark.parametrize("verb", [b"VRFY", b"EXPN"])
def test_no_verb_tells_who_exists(verb: bytes, at: Endpoint, account: Account) -> None:
    with Dialogue(at, "mx") as dialogue:
        known = dialogue.say(verb + b" " + account.address.encode())
        unknown = dialogue.say(verb + b" nobody@example.test")
        assert known == unknown


@pytest.mark.parametrize("verb", [b"DEBUG", b"WIZ", b"TURN", b"ETRN x", b"XEXCH50 2 2", b"\xff"])
def test_unknown_verbs_are_unimplemented(verb: bytes, at: Endpoint) -> None:
    with Dialogue(at, "mx") as dialogue:
        assert dialogue.say(verb) == [b"502 unimplemented (#5.5.1)"]


def test_a_looping_message_is_refused(at: Endpoint, account: Account) -> None:
    with mx(at) as dialogue:
        assert dialogue.code(b"RCPT TO:<" + account.address.encode() + b">") == b"250"
        assert dialogue.code(b"DATA") == b"354"
        dialogue.send(b"Received: by a\r\n" * 101 + b"\r\ntext\r\n.\r\n")
        assert dialogue.reply()[-1] == b"554 too many hops, this message is looping (#5.4.6)"


@pytest.fixture(scope="module")
def user(appliance: Appliance) -> Account:
    """Who submits."""
    return appliance.add_account()


@pytest.fixture(scope="module")
def submitting(appliance: Appliance, user: Account) -> Iterator[Dialogue]:
    """A session on submission, the same one for every odd line."""
    with Dialogue(appliance.endpoint, "submissions") as dialogue:
        dialogue.log_in(user)
        yield dialogue


@pytest.mark.parametrize(
    "line",
    [
        b"RCPT TO:<" + b"a" * 4000 + b"@elsewhere.example>",
        b"RCPT TO:<a@" + b"b" * 4000 + b">",
        b"RCPT TO:<a\x01b@elsewhere.example>",
        b"RCPT TO:<a\x7fb@elsewhere.example>",
        b"RCPT TO:<>",
        b"RCPT TO:<a@elsewhere.example> NOTIFY=NEVER",
        b"RCPT TO:<a@elsewhere.example> ORCPT=rfc822;b@c.example",
        b"MAIL FROM:<%b> SMTPUTF8",
        b"MAIL FROM:<%b> RET=HDRS",
        b"MAIL FROM:<%b> BODY=BINARYMIME",
        b"BDAT 0 LAST",
    ],
)
def test_a_user_may_say_no_more_than_a_stranger(
    line: bytes, submitting: Dialogue, user: Account
) -> None:
    address = user.address.encode()
    assert submitting.code(b"RSET") == b"250"
    if line.startswith(b"RCPT"):
        assert submitting.code(b"MAIL FROM:<" + address + b">") == b"250"
    assert submitting.code(line.replace(b"%b", address))[:1] == b"5"
    assert submitting.code(b"NOOP") == b"250"
