"""Passwords are nowhere that another process, another user or a log can see them."""

import base64
from collections.abc import Iterator

import pytest
from harness.appliance import Appliance, Process
from harness.clients import Account, Endpoint
from harness.dialogue import Dialogue

WRONG = "hunter2-was-never-right"
SERVICES = ("submission", "submissions", "pop3", "pop3s")


def forms(account: Account) -> list[bytes]:
    """Return the password as it is, and as it stands in base64 wherever it may begin."""
    password = account.password.encode()
    whole = f"\0{account.address}\0{account.password}".encode()
    inside = [base64.b64encode(b" " * skip + password)[4:-4] for skip in range(3)]
    return [password, base64.b64encode(password), base64.b64encode(whole), *inside]


def attempt(dialogue: Dialogue, account: Account) -> list[bytes]:
    """Try to log in, inside TLS; return the reply."""
    if dialogue.pop3:
        dialogue.say(b"USER " + account.address.encode())
        return dialogue.say(b"PASS " + account.password.encode())
    dialogue.say(b"EHLO client.example")
    assert dialogue.say(b"AUTH LOGIN")[0][:3] == b"334"
    assert dialogue.say(base64.b64encode(account.address.encode()))[0][:3] == b"334"
    return dialogue.say(base64.b64encode(account.password.encode()))


def refused_and_let_in(at: Endpoint, service: str, account: Account) -> list[Dialogue]:
    """Return two open connections: one with a wrong password behind it, one with the right."""
    found = []
    for tried in (Account(account.address, WRONG), account):
        dialogue = Dialogue(at, service)
        if service in ("submission", "pop3"):
            dialogue.start_tls()
        reply = attempt(dialogue, tried)
        assert reply[-1][:3] in ((b"535", b"-ER") if tried.password == WRONG else (b"235", b"+OK"))
        found.append(dialogue)
    return found


@pytest.fixture(scope="module")
def owner(appliance: Appliance) -> Account:
    """Whose password is looked for."""
    return appliance.add_account()


@pytest.fixture(scope="module")
def held(appliance: Appliance, owner: Account) -> Iterator[list[Process]]:
    """The processes while each service has let somebody in and turned somebody away."""
    dialogues = []
    for service in SERVICES:
        dialogues += refused_and_let_in(appliance.endpoint, service, owner)
    yield appliance.processes()
    for dialogue in dialogues:
        dialogue.socket.close()


@pytest.mark.parametrize("place", ["environ", "cmdline"])
def test_no_password_is_in_any_environment_or_command_line(
    place: str, held: list[Process], owner: Account
) -> None:
    secrets = [*forms(owner), *forms(Account(owner.address, WRONG))]
    read = b""
    for process in held:
        try:
            content = (process.folder / place).read_bytes()
        except OSError:
            continue  # gone in the meantime
        read += content
        for secret in secrets:
            assert secret not in content, process
    # It was the sessions' processes that were looked at.
    assert b"submission" in read


@pytest.mark.usefixtures("held")
def test_no_password_is_in_the_log(appliance: Appliance, owner: Account) -> None:
    log = appliance.logs().encode()
    assert b"checkpassword" in log
    assert owner.address.encode() in log
    for secret in [*forms(owner), *forms(Account(owner.address, WRONG))]:
        assert secret not in log


def files_with(appliance: Appliance, *texts: str) -> set[str]:
    """Return the files that hold one of the texts, of those that root or a service may read."""
    found: set[str] = set()
    for user in ("", "checkpw", "qmailq", "qmails", "qmaill"):
        search = [
            "sh",
            "-c",
            'printf "%s\\n" "$@" | grep -rlFsf - /data /run /tmp /var; true',
            "sh",
        ]
        found |= set(appliance.run([*search, *texts], user=user)[1].splitlines())
    return found


@pytest.mark.usefixtures("held")
def test_no_password_is_in_any_file(appliance: Appliance, owner: Account) -> None:
    assert files_with(appliance, *(secret.decode() for secret in forms(owner))) == set()
    # A hash is there: it was the right place to look.
    assert "/data/accounts/accounts.json" in files_with(appliance, owner.address)
