"""A user's own filters, in front of a real queue server; as a user of their own where root."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyqmail.qfilter import own
from pyqmail.queue import client, errors
from ucspi import cdb

UID = 20123 if os.geteuid() == 0 else os.geteuid()
MESSAGE = b"From: Alice <alice@example.org>\nSubject: x\n\nbody\n"
SENDER = b"alice@example.org"


class User:
    """A home, and what its user submits."""

    def __init__(self, home: Path, server) -> None:
        self.home = home
        self.server = server
        self.env = {
            **server.env,
            "HOME": str(home),
            "AUTHUP_USER": SENDER.decode(),
            "OFMIP_SENDERS": "users/senders.cdb",
            "QMAILQUEUE": "qmail-qfilter-queue",
            "QMAILQUEUEFILTERS": "control/ofmipfilters",
        }
        (server.home / "control/ofmipfilters").write_text(
            "sed s/^Subject:/X-System:1\\nSubject:/\n"
        )
        (server.home / "users").mkdir()
        cdb.write(
            str(server.home / "users/senders.cdb"),
            [(b"sales@example.org", b"alice@example.org"), (b"bob@example.org", b"")],
        )

    def write(self, name: str, content: str, mode: int = 0o600, uid: int = UID) -> Path:
        path = self.home / name
        for made in reversed(path.relative_to(self.home).parents[:-1]):
            (self.home / made).mkdir(exist_ok=True, mode=0o700)
            os.chown(self.home / made, UID, -1)
        path.write_text(content)
        path.chmod(mode)
        os.chown(path, uid, -1)
        return path

    def filters(self, *lines: str) -> None:
        self.write(own.FILTERS, "# mine\n\n" + "".join(line + "\n" for line in lines))

    def script(self, name: str, body: str) -> str:
        self.write(name, "#!/bin/sh\n" + body + "\n", 0o700)
        return f"./{name}"

    def submit(self, **more: str) -> bytes:
        """Queue the message as the user; return the reply, empty when it was queued."""
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                if os.geteuid() == 0:
                    os.setgroups([])
                    os.setresgid(UID, UID, UID)
                    os.setresuid(UID, UID, UID)
                injection = client.open_queue(self.env | more)
                injection.write(MESSAGE)
                result = injection.finish(SENDER, [b"x@y.z"])
                os.write(writing, errors.reply_for(result) if result.status else b"")
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading, "rb") as answers:
            reply = answers.read()
        os.waitpid(pid, 0)
        return reply

    def queued(self) -> tuple[bytes, bytes]:
        [(message, envelope)] = self.server.queued().values()
        return message.split(b"\n", 1)[1], envelope[envelope.index(b"F") :]


@pytest.fixture
def user(server) -> Iterator[User]:
    home = Path(tempfile.mkdtemp(prefix="user-home-"))
    os.chown(home, UID, -1)
    try:
        yield User(home, server)
    finally:
        shutil.rmtree(home)


def test_without_a_list_only_the_systems_filters_run(user: User) -> None:
    assert user.submit() == b""
    assert user.queued()[0] == MESSAGE.replace(b"Subject", b"X-System:1\nSubject")


def test_own_filters_run_in_the_home_and_before_the_systems(user: User) -> None:
    user.filters(user.script("bin/one", "sed 's/^Subject: x/Subject: mine/'"), "sed s/body/text/")
    assert user.submit() == b""
    assert user.queued()[0] == MESSAGE.replace(b"Subject: x", b"X-System:1\nSubject: mine").replace(
        b"body", b"text"
    )


def test_own_filter_runs_as_the_user_and_knows_the_mail(user: User) -> None:
    words = "$(id -u) $PWD $QMAILUSER $QMAILHOST $NUMRCPTS $MSGSIZE $ENVSIZE"
    user.filters(user.script("f", f'echo "X-Ran: {words}"; cat'))
    assert user.submit() == b""
    size = len(MESSAGE)
    wanted = f"X-Ran: {UID} {user.home} alice example.org 1 {size} 27\n"
    assert user.queued()[0].startswith(wanted.encode())


@pytest.mark.parametrize(
    "script", ["printf 'Dno swearing' >&4; exit 82", "echo no swearing >&2; exit 100"]
)
def test_own_words_reach_the_client(user: User, script: str) -> None:
    user.filters(user.script("f", script))
    assert user.submit() == b"554 no swearing"
    assert user.server.queued() == {}


@pytest.mark.parametrize(
    ("script", "reply"),
    [
        ("exit 100", b"554 your filter ./f refused the message (#5.7.1)"),
        ("exit 31", b"554 your filter ./f refused the message (#5.7.1)"),
        ("exit 1", b"451 your filter ./f failed, status 1 (#4.3.0)"),
        ("kill -9 $$", b"451 your filter ./f died of signal 9 (#4.3.0)"),
        ("head -c 1000 /dev/zero >&4", b"451 qq internal bug (#4.3.0)"),
    ],
)
def test_failing_filter_queues_nothing_and_says_so(user: User, script: str, reply: bytes) -> None:
    user.filters(user.script("f", script))
    assert user.submit() == reply
    assert user.server.queued() == {}


def test_own_filter_has_its_descriptors_and_no_other(user: User) -> None:
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(8)]
    for number in held:
        os.set_inheritable(number, True)
    user.filters(user.script("f", 'ls /proc/$$/fd >list; echo "X-Open:" $(cat list); cat'))
    assert user.submit() == b""
    for number in held:
        os.close(number)
    # The shell's own ones are from 10 on.
    opened = user.queued()[0].partition(b"\n")[0].split()[1:]
    assert [int(number) for number in opened if int(number) < 10] == [0, 1, 2, 3, 4, 6]


def test_filter_knows_the_process_that_queues(user: User) -> None:
    user.filters(user.script("f", 'echo "X-Parent: $QMAILPPID $PPID"; cat'))
    assert user.submit() == b""
    _, queues, parent = user.queued()[0].partition(b"\n")[0].split()
    assert queues == parent


def test_missing_filter(user: User) -> None:
    user.filters("./nonexistent")
    assert user.submit() == b"451 your filter ./nonexistent could not be run (#4.3.0)"


def test_own_words_never_reach_the_log(user: User, capfd) -> None:
    user.filters(user.script("f", "echo qmail-send: forged >&2; cat"))
    assert user.submit() == b""
    assert "forged" not in capfd.readouterr().err


def test_slow_filter_is_killed_with_its_children(user: User, monkeypatch) -> None:
    monkeypatch.setattr(own, "SECONDS", 0.2)
    held = user.home / "held"
    os.mkfifo(held)
    os.chown(held, UID, -1)
    user.filters(user.script("f", "sleep 600 >held & sleep 600"))
    reading = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    assert user.submit().startswith(b"451 your filter ./f took more than")
    os.set_blocking(reading, True)
    assert os.read(reading, 1) == b""  # end of file: nobody holds it open any more
    os.close(reading)


def test_what_a_filter_leaves_running_is_killed(user: User) -> None:
    held = user.home / "held"
    os.mkfifo(held)
    os.chown(held, UID, -1)
    reading = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    user.filters(user.script("f", "sleep 600 >held & cat"))
    assert user.submit() == b""
    os.set_blocking(reading, True)
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_too_much_output_is_cut_off(user: User, monkeypatch) -> None:
    limits = dict(own.LIMITS) | {own.resource.RLIMIT_FSIZE: 100_000}
    monkeypatch.setattr(own, "LIMITS", tuple(limits.items()))
    user.filters(user.script("f", "exec head -c 200000 /dev/zero"))
    assert user.submit().startswith(b"451 ")
    assert user.server.queued() == {}


def test_dropped_message_is_accepted(user: User) -> None:
    user.filters(user.script("f", "exit 99"))
    assert user.submit() == b""
    assert user.server.queued() == {}


@pytest.mark.parametrize(
    ("prepare", "reply"),
    [
        (lambda home: (home / own.FILTERS).chmod(0o620), b"your .ofmipd/filters is writable"),
        (lambda home: (home / own.FILTERS).chmod(0o602), b"your .ofmipd/filters is writable"),
        (lambda home: (home / ".ofmipd").chmod(0o770), b"your .ofmipd is writable by others"),
        (lambda home: home.chmod(0o777), b"your home is writable by others"),
        (lambda home: (home / own.FILTERS).write_text("x\n" * 40000), b"your .ofmipd/filters is"),
    ],
)
def test_list_that_others_may_have_written_is_not_believed(
    user: User, prepare: Callable[[Path], None], reply: bytes
) -> None:
    user.filters("true")
    prepare(user.home)
    assert user.submit().startswith(b"451 " + reply)
    assert user.server.queued() == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_list_of_somebody_else_is_not_believed(user: User) -> None:
    user.filters("true")
    user.write(own.FILTERS, "true\n", 0o644, UID + 1)
    assert user.submit() == b"451 your .ofmipd/filters is not yours (#4.7.0)"


def test_list_that_is_no_file_is_not_believed(user: User) -> None:
    user.filters("true")
    (user.home / own.FILTERS).unlink()
    os.mkfifo(user.home / own.FILTERS)
    assert user.submit() == b"451 your .ofmipd/filters is not a file (#4.7.0)"


def test_list_counts_in_an_authenticated_session_only(user: User) -> None:
    user.filters("false")
    del user.env["AUTHUP_USER"]
    assert user.submit() == b""


def test_root_never_runs_a_users_filter(user: User, monkeypatch) -> None:
    user.filters("false")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert own.find(user.env) is None


@pytest.mark.parametrize("sender", ["alice@example.org", "alice-x@example.org", ""])
def test_filter_may_make_the_sender_an_address_of_the_users(user: User, sender: str) -> None:
    user.filters(user.script("f", f"printf 'F{sender}\\0Tp@q.r\\0\\0' >&4; cat"))
    assert user.submit() == b""
    assert user.queued()[1] == b"F%b\0Tp@q.r\0" % sender.encode()


@pytest.mark.parametrize("sender", ["bob@example.org", "eve@elsewhere.example"])
def test_filter_cannot_make_the_sender_somebody_else(user: User, sender: str) -> None:
    user.filters(user.script("f", f"printf 'F{sender}\\0Tp@q.r\\0\\0' >&4; cat"))
    assert user.submit() == b"554 your filters made this mail somebody else's (#5.7.1)"
    assert user.server.queued() == {}


@pytest.mark.parametrize("author", ["alice@example.org", "Sales <sales@example.org>"])
def test_filter_may_make_an_address_of_the_users_the_author(user: User, author: str) -> None:
    user.filters(user.script("f", f"sed 's/^From:.*/From: {author}/'"))
    assert user.submit() == b""
    assert b"From: " + author.encode() in user.queued()[0]


@pytest.mark.parametrize(
    ("script", "reply"),
    [
        ("sed 's/^From:.*/From: bob@example.org/'", own.NOT_YOURS),
        ("echo 'From: bob@example.org'; cat", own.NOT_YOURS),
        ("sed 's/^From:.*/From: \"open/'", own.NOT_YOURS),
        ("sed 's/^From:.*/From: <@bob@example.org:alice@example.org>/'", own.NOT_YOURS),
        ("echo 'Sender: bob@example.org'; cat", own.NOT_YOURS),
        ("echo 'Resent-From: bob@example.org'; cat", own.NOT_YOURS),
        ("sed /^From:/d", b"Dyour filters removed the From field (#5.6.0)"),
        ("echo; cat", b"Dyour filters removed the From field (#5.6.0)"),
    ],
)
def test_filter_cannot_make_somebody_else_the_author(user: User, script: str, reply: bytes) -> None:
    user.filters(user.script("f", script))
    assert user.submit() == b"554 " + reply[1:]
    assert user.server.queued() == {}


def test_without_a_sender_check_anything_goes(user: User) -> None:
    del user.env["OFMIP_SENDERS"]
    user.filters(user.script("f", "printf 'Fbob@b.c\\0Tp@q.r\\0\\0' >&4; sed s/^From:.*/From:b@c/"))
    assert user.submit() == b""
