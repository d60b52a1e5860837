"""Forwarding with SRS: who gets which sender, who may know the secrets, and the way back."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyqmail.local import conditional, forward, forwarding, recipients, returnpath
from pyqmail.local.deliverer import Deliverer
from pyqmail.local.forwarding import Forward
from pyqmail.local.returnpath import NoSuchAddress, ReturnPaths
from pyqmail.send.spawnprotocol import Request
from pyqmail.users import newu
from ucspi import cdb

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the secrets are root's")

JOE = 20001
MESSAGE = b"Subject: hello\n\nbody\n"
OUTSIDE = b"sam@outside.example"
QUEUE = """\
#!/bin/sh
cat >{0}/message.$$
cat <&1 >{0}/envelope.$$
exit ${{Q_STATUS:-0}}
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A qmail home with SRS in use, a user joe, and a program that queues into out/."""
    root = Path(tempfile.mkdtemp(prefix="postern-test-"))
    root.chmod(0o755)
    home = root / "qmail"
    for name in ("control", "users", "out", "queue/mess"):
        (home / name).mkdir(parents=True)
    (home / "out").chmod(0o777)
    (home / "queue/mess").chmod(0o700)
    (home / "control/me").write_text("mx.example.org\n")
    (home / "control/locals").write_text("mx.example.org\n")
    (home / "control/virtualdomains").write_text("example.org:example.org\n")
    (home / "control/srs_domain").write_text("Example.org\n")
    secrets = home / "control/srs_secrets"
    secrets.write_text("# the newest first\nnew\nold\n")
    secrets.chmod(0o600)
    (home / "queue.sh").write_text(QUEUE.format(home / "out"))
    (home / "queue.sh").chmod(0o755)
    joe = root / "joe"
    joe.mkdir(mode=0o700)
    os.chown(joe, JOE, JOE)
    (home / "alias").mkdir()
    listed = f"=example.org-joe:joe:{JOE}:{JOE}:{joe}:::\n+:alias:7790:2108:{home}/alias:-::\n.\n"
    cdb.write(str(home / "users/cdb"), newu.records(listed.encode()))
    yield home
    shutil.rmtree(root)


@pytest.fixture
def env(home: Path) -> dict[str, str]:
    return {"QMAIL_HOME": str(home), "QMAILQUEUE": str(home / "queue.sh"), "PATH": "/usr/bin:/bin"}


@pytest.fixture
def paths(home: Path, env: dict[str, str]) -> ReturnPaths:
    return ReturnPaths(str(home), env)


def dot_qmail(home: Path, content: str) -> None:
    path = home.parent / "joe/.qmail"
    path.write_text(content)
    os.chown(path, JOE, JOE)
    path.chmod(0o600)


def queued(home: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (home / "out").glob("envelope.*"))


class Delivered(tuple[int, bytes]):
    """Exit status and output."""


@pytest.fixture
def deliver(home: Path, env: dict[str, str]) -> Callable[..., Delivered]:
    """Plan as qmail-lspawn, then deliver in a child as qmail-lspawn's."""

    def run(sender: bytes, recipient: bytes, **more: str) -> Delivered:
        deliverer = Deliverer(str(home), b"./Maildir/", env | more)
        plan = deliverer.plan(Request(0, b"1/1", sender, recipient))
        (home / "message").write_bytes(MESSAGE)
        message = os.open(home / "message", os.O_RDONLY)
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            status = 70
            try:
                os.chdir(home / "queue/mess")
                for number, descriptor in enumerate((message, writing, writing)):
                    os.dup2(descriptor, number)
                status = deliverer.deliver(plan.payload)
            finally:
                os._exit(status)
        os.close(writing)
        os.close(message)
        with open(reading, "rb") as output:
            said = output.read()
        return Delivered((os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said))

    return run


def made_for(sender: bytes, paths: ReturnPaths) -> bytes:
    made = paths.sender_for(sender)
    assert made.startswith(b"SRS0=") and made.endswith(b"=sam@example.org")
    return made


def test_outside_recipients_get_the_rewritten_sender(home: Path, deliver, paths) -> None:
    dot_qmail(home, "&ann@example.org\n&bob@far.example\neve@near.example\n")
    assert deliver(OUTSIDE, b"example.org-joe@example.org")[0] == 0
    made = made_for(OUTSIDE, paths)
    assert queued(home) == [
        b"F%b\0Tbob@far.example\0Teve@near.example\0\0" % made,
        b"F%b\0Tann@example.org\0\0" % OUTSIDE,
    ]


@pytest.mark.parametrize(
    "sender", [b"", b"#@[]", b"ann@example.org", b"x@MX.example.org", b"nohost"]
)
def test_bounces_and_local_senders_keep_theirs(home: Path, deliver, sender: bytes) -> None:
    dot_qmail(home, "&bob@far.example\n")
    assert deliver(sender, b"example.org-joe@example.org")[0] == 0
    assert queued(home) == [b"F%b\0Tbob@far.example\0\0" % sender]


def test_programs_forward_under_the_rewritten_sender(home: Path, deliver) -> None:
    dot_qmail(home, '|echo "$SRS_SENDER $SENDER"\n')
    status, said = deliver(OUTSIDE, b"example.org-joe@example.org")
    assert status == 0
    assert said.startswith(b"SRS0=") and b"@example.org " + OUTSIDE in said


def test_users_cannot_read_the_secrets(home: Path, deliver) -> None:
    dot_qmail(home, f"|cat {home}/control/srs_secrets || exit 100\n")
    assert deliver(OUTSIDE, b"example.org-joe@example.org")[0] == 100


@pytest.mark.parametrize("recipient", [b"%b", b"example.org-%b"])
def test_bounce_goes_back_to_the_first_sender(home: Path, deliver, paths, recipient) -> None:
    made = made_for(OUTSIDE, paths)
    status, said = deliver(b"", recipient % made)
    assert status == 0 and said.startswith(b"did 0+1+0\nqp ")
    assert queued(home) == [b"F\0T%b\0\0" % OUTSIDE]
    (message,) = (home / "out").glob("message.*")
    assert message.read_bytes() == b"Delivered-To: " + recipient % made + b"\n" + MESSAGE
    assert message.stat().st_uid == 7790  # alias


def test_reply_to_a_rewritten_address_is_a_forward_too(home: Path, deliver, paths) -> None:
    assert deliver(b"sam@other.example", made_for(OUTSIDE, paths))[0] == 0
    (envelope,) = queued(home)
    assert envelope.startswith(b"FSRS0=") and b"=other.example=sam@example.org\0" in envelope


def test_forged_address_is_like_any_that_is_not_there(home: Path, deliver, paths) -> None:
    forged = made_for(OUTSIDE, paths).replace(b"sam", b"eve")
    status, said = deliver(b"", b"example.org-" + forged)
    assert status == 100 and b"no mailbox here" in said
    assert queued(home) == []


def test_looping_bounce_ends(home: Path, deliver, paths, monkeypatch) -> None:
    made = made_for(OUTSIDE, paths)
    monkeypatch.setitem(globals(), "MESSAGE", b"Delivered-To: %b\n\nbody\n" % made)
    status, said = deliver(b"", made)
    assert status == 100 and b"looping" in said


def test_first_refusal_ends_a_forward_to_both(home: Path, deliver) -> None:
    dot_qmail(home, "&ann@example.org\n&bob@far.example\n")
    status, said = deliver(OUTSIDE, b"example.org-joe@example.org", Q_STATUS="71")
    assert status == 111 and said.startswith(b"Unable to forward message: mail server temp")
    assert len(queued(home)) == 1


def test_address_is_checked_at_rcpt(home: Path, paths, monkeypatch) -> None:
    monkeypatch.chdir(home)
    decider = recipients.Decider(paths)
    made = made_for(OUTSIDE, paths)
    assert decider.decide(made) == recipients.EXISTS
    assert decider.decide(made.replace(b"sam", b"eve")) == recipients.NO_MAILBOX
    assert decider.decide(b"SRS0=a=b=c=d@far.example") == recipients.EXISTS  # not ours to say


def test_control_files_are_read_again(home: Path, paths, monkeypatch) -> None:
    monkeypatch.setattr(returnpath, "CHECK_SECONDS", 0.0)
    before = made_for(OUTSIDE, paths)
    secrets = home / "control/srs_secrets"
    fresh = home / "control/fresh"
    fresh.write_text("newest\nnew\n")
    fresh.chmod(0o600)
    fresh.rename(secrets)
    assert made_for(OUTSIDE, paths) != before
    assert paths.target_of(before) == OUTSIDE
    fresh.write_text("newest\n")
    fresh.chmod(0o600)
    fresh.rename(secrets)
    with pytest.raises(NoSuchAddress):
        paths.target_of(before)
    (home / "control/srs_domain").unlink()
    assert paths.sender_for(OUTSIDE) == b""
    assert paths.target_of(before) is None


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o606])
def test_secrets_that_others_can_read_are_not_used(home: Path, paths, mode: int, capfd) -> None:
    secrets = home / "control/srs_secrets"
    os.chown(secrets, 0, 2107)
    secrets.chmod(mode)
    assert paths.sender_for(OUTSIDE) == b""
    assert "can be read by others" in capfd.readouterr().err


@pytest.mark.parametrize("missing", ["srs_secrets", "locals"])
def test_missing_control_file_leaves_senders_alone(home: Path, paths, missing: str, capfd) -> None:
    (home / "control" / missing).unlink()
    if missing == "locals":
        (home / "control/me").unlink()
    assert paths.sender_for(OUTSIDE) == b""
    assert paths.sender_for(OUTSIDE) == b""
    assert capfd.readouterr().err.count("forwarding without SRS") == 1


def test_a_lists_owner_stays_the_sender(env: dict[str, str]) -> None:
    env["SRS_SENDER"] = "SRS0=x@example.org"
    found = forwarding.envelopes(b"list-owner@example.org", OUTSIDE, [b"bob@far.example"], env)
    assert found == [Forward(b"list-owner@example.org", [b"bob@far.example"])]


@pytest.mark.parametrize(
    ("main", "argv", "status"),
    [
        (forward.main, ["ann@example.org", "bob@far.example"], 0),
        (conditional.condredirect, ["bob@far.example", "true"], 99),
    ],
)
def test_forward_and_condredirect(home: Path, env, main, argv: list[str], status: int) -> None:
    env |= {"SENDER": OUTSIDE.decode(), "NEWSENDER": OUTSIDE.decode(), "DTLINE": "D: x\n"}
    env["SRS_SENDER"] = "SRS0=x@example.org"
    (home / "message").write_bytes(MESSAGE)
    pid = os.fork()
    if not pid:
        code = 70
        try:
            os.dup2(os.open(home / "message", os.O_RDONLY), 0)
            code = main(["x", *argv], env)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status
    assert queued(home)[0] == b"FSRS0=x@example.org\0Tbob@far.example\0\0"
    assert queued(home)[1:] == ([b"F%b\0Tann@example.org\0\0" % OUTSIDE] if status == 0 else [])
    for message in (home / "out").glob("message.*"):
        assert message.read_bytes() == b"D: x\n" + MESSAGE
