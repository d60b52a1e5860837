"""Who must not get in, or on, does not: the right code, and nothing delivered."""

import base64
import ssl

import pytest
from harness import mail
from harness.appliance import Appliance
from harness.clients import Account, Endpoint, trusting_context
from harness.dialogue import Dialogue

SUBMISSION = ("submission", "submissions")
POP3 = ("pop3", "pop3s")
WRONG = b"535 authup authorization failed (#5.7.0)"
NO_MAILBOX = b"550 sorry, no mailbox here by that name. (#5.1.1)"
NOT_OURS = b"553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"


def inside_tls(at: Endpoint, service: str) -> Dialogue:
    """Return a dialogue that is inside TLS, before AUTH."""
    dialogue = Dialogue(at, service)
    if service in ("submission", "pop3"):
        if service == "submission":
            dialogue.say(b"EHLO client.example")
        dialogue.start_tls()
    return dialogue


def plain(user: str, password: str) -> bytes:
    """Return an AUTH PLAIN line with its initial response (RFC 4616)."""
    return b"AUTH PLAIN " + base64.b64encode(f"\0{user}\0{password}".encode())


@pytest.mark.parametrize("service", SUBMISSION)
@pytest.mark.parametrize("user", ["account", "nobody@example.test", "root", "alias", "qmaild"])
def test_wrong_password_and_unknown_user_get_the_same_reply(
    service: str, user: str, at: Endpoint, account: Account
) -> None:
    name = account.address if user == "account" else user
    with inside_tls(at, service) as dialogue:
        dialogue.say(b"EHLO client.example")
        assert dialogue.say(plain(name, "not the password")) == [WRONG]
        assert dialogue.say(b"MAIL FROM:<a@example.test>")[0].startswith(b"530 ")


@pytest.mark.parametrize("service", POP3)
@pytest.mark.parametrize("user", ["account", "nobody@example.test", "root"])
def test_pop3_refuses_a_wrong_password_and_disconnects(
    service: str, user: str, at: Endpoint, account: Account
) -> None:
    name = account.address if user == "account" else user
    with inside_tls(at, service) as dialogue:
        assert dialogue.say(b"USER " + name.encode())[0].startswith(b"+OK")
        assert dialogue.say(b"PASS wrong") == [b"-ERR authup authorization failed"]
        assert dialogue.rest() == b""


def test_submission_ends_after_five_wrong_passwords(at: Endpoint, account: Account) -> None:
    with inside_tls(at, "submission") as dialogue:
        dialogue.say(b"EHLO client.example")
        for _ in range(5):
            assert dialogue.say(plain(account.address, "wrong")) == [WRONG]
        assert dialogue.rest() == b""


def test_auth_before_tls_is_refused_and_not_offered(at: Endpoint, account: Account) -> None:
    with Dialogue(at, "submission") as dialogue:
        offered = dialogue.say(b"EHLO client.example")
        assert b"250-STARTTLS" in offered
        assert not [line for line in offered if b"AUTH" in line]
        reply = dialogue.say(plain(*account))
        assert reply == [b"530 authup Must start TLS first (#5.7.0)"]


def test_user_before_tls_is_refused_and_not_offered(at: Endpoint, account: Account) -> None:
    with Dialogue(at, "pop3") as dialogue:
        dialogue.say(b"CAPA")
        capabilities = []
        while (line := dialogue.line()) != b".":
            capabilities.append(line)
        assert b"STLS" in capabilities
        assert b"USER" not in capabilities
        reply = dialogue.say(b"USER " + account.address.encode())
        assert reply == [b"-ERR authup Must start TLS first"]


@pytest.mark.parametrize("service", SUBMISSION)
def test_mail_before_auth_is_refused(service: str, at: Endpoint) -> None:
    with inside_tls(at, service) as dialogue:
        dialogue.say(b"EHLO client.example")
        reply = dialogue.say(b"MAIL FROM:<a@example.test>")
        assert reply == [b"530 authup authentication required (#5.7.1)"]


def test_the_mx_offers_and_takes_no_auth(at: Endpoint, account: Account) -> None:
    with Dialogue(at, "mx") as dialogue:
        assert not [line for line in dialogue.say(b"EHLO client.example") if b"AUTH" in line]
        assert dialogue.code(plain(*account)) in (b"502", b"503", b"504")


@pytest.mark.parametrize(
    "recipient",
    [
        "victim@elsewhere.example",
        "victim%elsewhere.example@relay.example",
        "@example.test:victim@elsewhere.example",
        "victim@[192.0.2.1]",
        "victim@example.test.elsewhere.example",
        "victim@sub.example.test",
    ],
)
def test_the_mx_does_not_relay_for_its_gateway(recipient: str, at: Endpoint) -> None:
    # The published port makes this test's connection come from the container's gateway.
    with Dialogue(at, "mx") as dialogue:
        dialogue.say(b"EHLO client.example")
        assert dialogue.code(b"MAIL FROM:<a@outside.example>") == b"250"
        assert dialogue.say(b"RCPT TO:<" + recipient.encode() + b">") == [NOT_OURS]
        assert dialogue.code(b"DATA") == b"503"


def test_the_mx_does_not_relay_for_another_container(appliance: Appliance) -> None:
    inside = Endpoint(appliance.address, {"mx": 25})
    with Dialogue(inside, "mx") as dialogue:
        dialogue.say(b"EHLO client.example")
        assert dialogue.code(b"MAIL FROM:<a@example.test>") == b"250"
        assert dialogue.say(b"RCPT TO:<victim@elsewhere.example>") == [NOT_OURS]


@pytest.mark.parametrize(
    "local", ["nobody-of-that-name", "root", "qmaild", "nobody%example.test", '"no body"']
)
def test_an_unknown_recipient_is_refused_at_rcpt(local: str, at: Endpoint) -> None:
    with Dialogue(at, "mx") as dialogue:
        dialogue.say(b"EHLO client.example")
        assert dialogue.code(b"MAIL FROM:<a@outside.example>") == b"250"
        reply = dialogue.say(b"RCPT TO:<" + local.encode() + b"@example.test>")
        if local == "root":
            # RFC 2142 and every administrator expect these roles to exist.
            assert reply[0].startswith((b"250", b"550"))
        else:
            assert reply == [NO_MAILBOX]


@pytest.mark.parametrize("role", ["postmaster", "abuse"])
def test_the_roles_of_rfc_2142_take_mail(role: str, at: Endpoint) -> None:
    with Dialogue(at, "mx") as dialogue:
        dialogue.say(b"EHLO client.example")
        assert dialogue.code(b"MAIL FROM:<a@outside.example>") == b"250"
        assert dialogue.code(b"RCPT TO:<" + role.encode() + b"@example.test>") == b"250"


def test_a_sender_that_is_not_the_login_is_refused(
    appliance: Appliance, at: Endpoint, account: Account
) -> None:
    other = appliance.add_account()
    with inside_tls(at, "submission") as dialogue:
        dialogue.say(b"EHLO client.example")
        assert dialogue.code(plain(*account)) == b"235"
        assert dialogue.code(b"MAIL FROM:<" + other.address.encode() + b">") == b"553"
        assert dialogue.code(b"MAIL FROM:<" + account.address.encode() + b">") == b"250"


def test_a_from_field_that_is_not_the_login_is_refused(
    appliance: Appliance, at: Endpoint, account: Account
) -> None:
    other = appliance.add_account()
    forged = mail.compose(other.address, account.address)
    with inside_tls(at, "submission") as dialogue:
        dialogue.say(b"EHLO client.example")
        assert dialogue.code(plain(*account)) == b"235"
        assert dialogue.code(b"MAIL FROM:<" + account.address.encode() + b">") == b"250"
        assert dialogue.code(b"RCPT TO:<" + account.address.encode() + b">") == b"250"
        assert dialogue.code(b"DATA") == b"354"
        dialogue.send(forged.raw.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        assert dialogue.reply()[-1].startswith(b"553 ")


def test_a_deleted_account_no_longer_gets_in(
    appliance: Appliance, at: Endpoint, account: Account
) -> None:
    with inside_tls(at, "submission") as dialogue:
        dialogue.say(b"EHLO client.example")
        assert dialogue.code(plain(*account)) == b"235"
    assert appliance.postern("user", "del", account.address)[0] == 0
    with inside_tls(at, "submission") as dialogue:
        dialogue.say(b"EHLO client.example")
        assert dialogue.say(plain(*account)) == [WRONG]


def test_a_changed_password_is_effective_at_once(
    appliance: Appliance, at: Endpoint, account: Account
) -> None:
    status, printed = appliance.postern("user", "passwd", account.address, data=b"another one\n")
    assert status == 0, printed
    with inside_tls(at, "submission") as dialogue:
        dialogue.say(b"EHLO client.example")
        assert dialogue.say(plain(*account)) == [WRONG]
        assert dialogue.code(plain(account.address, "another one")) == b"235"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
@pytest.mark.parametrize("service", ["mx", "submission", "submissions", "pop3", "pop3s"])
def test_old_tls_versions_are_refused(service: str, version: str, at: Endpoint) -> None:
    context = trusting_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1 if version == "-tls1" else ssl.TLSVersion.TLSv1_1
    with Dialogue(at, service, greet=False, tls=False) as dialogue:
        if service in ("mx", "submission", "pop3"):
            dialogue.reply()
            if service != "pop3":
                dialogue.say(b"EHLO client.example")
            dialogue.say(b"STLS" if service == "pop3" else b"STARTTLS")
        with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
            dialogue.start_tls_now(context)
