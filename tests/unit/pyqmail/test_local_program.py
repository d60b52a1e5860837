"""qmail-local, the whole program, in a process of its own."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pyqmail.local import program

MESSAGE = b"Received: x\nSubject: hello\n\nDelivered-To: joe@example.org\nbody\n"


class Run(NamedTuple):
    """What a run of qmail-local did."""

    status: int
    output: bytes
    errors: bytes


Local = Callable[..., Run]


def fork(tmp_path: Path, argv: list[str], env: dict[str, str], message: bytes) -> Run:
    """Run qmail-local's main in a child, with a message on descriptor 0."""
    (tmp_path / "message").write_bytes(message)
    files = [os.open(tmp_path / "message", os.O_RDONLY)]
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
    files += [os.open(tmp_path / name, flags) for name in ("output", "errors")]
    pid = os.fork()
    if not pid:
        status = 70
        try:
            for wanted, file in enumerate(files):
                os.dup2(file, wanted)
            status = program.main(argv, env)
        finally:
            os._exit(status)
    for file in files:
        os.close(file)
    _, wait_status = os.waitpid(pid, 0)
    output, errors = ((tmp_path / name).read_bytes() for name in ("output", "errors"))
    return Run(os.waitstatus_to_exitcode(wait_status), output, errors)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory that other users may pass through; pytest's own one shuts them out."""
    path = Path(tempfile.mkdtemp(prefix="postern-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir(mode=0o700)
    for name in ("tmp", "new", "cur"):
        (tmp_path / "home" / "Maildir" / name).mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def local(tmp_path: Path, home: Path) -> Local:
    def run(
        ext: str = "",
        *,
        options: tuple[str, ...] = (),
        sender: str = "sam@example.net",
        message: bytes = MESSAGE,
        default: str = "./Maildir/",
        env: dict[str, str] | None = None,
    ) -> Run:
        name, dash = ("joe-" + ext, "-") if ext else ("joe", "")
        words = ["joe", str(home), name, dash, ext, "example.org", sender, default]
        argv = ["qmail-local", *options, "--", *words]
        return fork(tmp_path, argv, {"PATH": "/usr/bin:/bin", **(env or {})}, message)

    return run


def dot(home: Path, name: str, content: str, mode: int = 0o600) -> None:
    (home / name).write_text(content)
    (home / name).chmod(mode)


def delivered(home: Path) -> list[bytes]:
    return [path.read_bytes() for path in (home / "Maildir" / "new").iterdir()]


def test_without_a_qmail_file_the_default_delivery_is_followed(local: Local, home: Path) -> None:
    assert local() == (0, b"did 1+0+0\n", b"")
    heading = b"Return-Path: <sam@example.net>\nDelivered-To: joe@example.org\n"
    assert delivered(home) == [heading + MESSAGE]


def test_an_empty_qmail_file_means_the_default_delivery(local: Local, home: Path) -> None:
    dot(home, ".qmail-list", "", 0o700)
    assert local("list") == (0, b"did 1+0+0\n", b"")


def test_an_extension_without_a_file_bounces(local: Local, home: Path) -> None:
    assert local("nobody") == (100, b"", b"Sorry, no mailbox here by that name. (#5.1.1)\n")
    assert delivered(home) == []


def test_mbox_and_comments_and_several_instructions(local: Local, home: Path) -> None:
    dot(home, ".qmail", "# both\n./Mailbox\n./Maildir/\n")
    assert local() == (0, b"did 2+0+0\n", b"")
    content = (home / "Mailbox").read_bytes()
    assert content.startswith(b"From sam@example.net ")
    heading = b"\nReturn-Path: <sam@example.net>\nDelivered-To: joe@example.org\n"
    assert heading + MESSAGE + b"\n" in content


def test_a_message_that_was_here_before_bounces(local: Local, home: Path) -> None:
    run = local(message=b"Subject: x\nDelivered-To: joe@example.org\n\nbody\n")
    text = b"This message is looping: it already has my Delivered-To line. (#5.4.6)\n"
    assert run == (100, b"", text)
    assert delivered(home) == []


def test_a_loop_is_seen_behind_a_long_header(local: Local) -> None:
    filler = b"".join(b"X-Filler-%d: %s\n" % (n, b"x" * 90) for n in range(2000))
    assert local(message=filler + b"Delivered-To: joe@example.org\n\n").status == 100


def test_a_delivered_to_line_in_the_body_is_no_loop(local: Local) -> None:
    assert local(message=b"Subject: x\n\nDelivered-To: joe@example.org\n").status == 0


def test_the_environment_of_a_program(local: Local, home: Path) -> None:
    names = "SENDER NEWSENDER RECIPIENT USER HOME HOST HOST2 LOCAL EXT EXT2 DEFAULT DTLINE RPLINE"
    command = 'printf "%s\\n" ' + " ".join(f'"${n}"' for n in names.split())
    dot(home, ".qmail-list-default", f"|{command} > seen; pwd >> seen; cat >> seen\n")
    assert local("list-Sub.Me") == (0, b"did 0+0+1\n", b"")
    assert (home / "seen").read_bytes() == (
        b"sam@example.net\nsam@example.net\njoe-list-Sub.Me@example.org\njoe\n"
        + os.fsencode(home)
        + b"\nexample.org\nexample\njoe-list-Sub.Me\nlist-Sub.Me\nSub.Me\nSub.Me\n"
        b"Delivered-To: joe-list-Sub.Me@example.org\n\nReturn-Path: <sam@example.net>\n\n"
        + os.fsencode(home)
        + b"\n"
        + MESSAGE
    )


def test_default_is_not_set_by_a_plain_qmail_file(local: Local, home: Path) -> None:
    dot(home, ".qmail-list", '|echo "${DEFAULT-unset}"\n')
    assert local("list").output == b"unset\ndid 0+0+1\n"


def test_each_program_reads_the_message_from_its_start(local: Local, home: Path) -> None:
    dot(home, ".qmail", "|cat > one\n|cat > two\n./Maildir/\n")
    assert local().output == b"did 1+0+2\n"
    assert (home / "one").read_bytes() == (home / "two").read_bytes() == MESSAGE


@pytest.mark.parametrize("status", [100, 64, 65, 70, 76, 77, 78, 112])
def test_hard_exit_statuses_bounce(local: Local, home: Path, status: int) -> None:
    dot(home, ".qmail", f"|echo no such luck; exit {status}\n./Maildir/\n")
    assert local() == (100, b"no such luck\n", b"")
    assert delivered(home) == []


@pytest.mark.parametrize("status", [111, 1, 2, 71, 75, 98, 101, 127, 255])
def test_all_other_exit_statuses_defer(local: Local, home: Path, status: int) -> None:
    dot(home, ".qmail", f"|exit {status}\n./Maildir/\n")
    assert local() == (111, b"", b"")
    assert delivered(home) == []


def test_status_99_stops_but_what_was_said_before_counts(local: Local, home: Path) -> None:
    dot(home, ".qmail", "./Maildir/\n|exit 99\n|touch reached\n\n/nowhere/at/all\n")
    assert local() == (0, b"did 1+0+1\n", b"")
    assert not (home / "reached").exists()


def test_a_program_that_crashes_defers(local: Local, home: Path) -> None:
    dot(home, ".qmail", "|kill -9 $$\n")
    assert local() == (111, b"", b"Aack, child crashed. (#4.3.0)\n")


def test_programs_get_default_signals(local: Local, home: Path) -> None:
    # A program that writes to a closed pipe must die of it and not go on for ever.
    dot(home, ".qmail", "|grep SigIgn /proc/self/status\n")
    ignored = int(local().output.split()[1], 16)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD):
        assert not ignored & (1 << (number - 1))


def test_programs_do_not_inherit_the_descriptors_of_the_mail_system(
    local: Local, home: Path
) -> None:
    secret = os.open(home, os.O_RDONLY)
    dot(home, ".qmail", f"|test ! -e /proc/self/fd/{secret}\n")
    assert local().status == 0
    os.close(secret)


def test_a_missing_maildir_defers(local: Local, home: Path) -> None:
    dot(home, ".qmail", "./Nowhere/\n")
    assert local() == (111, b"", b"Unable to chdir to maildir. (#4.2.1)\n")


def test_over_quota_bounces(local: Local, home: Path) -> None:
    (home / "Maildir" / "maildirsize").write_bytes(b"100S\n0 0\n")
    text = b"Recipient's mailbox is full, message returned to sender. (#5.2.2)\n"
    assert local() == (100, b"", text)


@pytest.mark.parametrize("mode", [0o720, 0o702])
def test_a_home_that_others_can_write_defers(local: Local, home: Path, mode: int) -> None:
    home.chmod(mode)
    assert local() == (111, b"", b"Uh-oh: home directory is writable. (#4.7.0)\n")


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_qmail_file_that_others_can_write_defers(local: Local, home: Path, mode: int) -> None:
    dot(home, ".qmail", "./Maildir/\n", mode)
    assert local() == (111, b"", b"Uh-oh: .qmail file is writable. (#4.7.0)\n")


def test_an_endless_qmail_file_is_not_read_to_its_end(local: Local, home: Path) -> None:
    with open(home / ".qmail", "wb") as file:
        file.truncate(1 << 40)
    assert local() == (111, b"", b"Uh-oh: .qmail file is larger than 1 MiB. (#4.3.0)\n")


def test_a_sticky_home_defers(local: Local, home: Path) -> None:
    home.chmod(0o1700)
    text = b"Home directory is sticky: user is editing his .qmail file. (#4.2.1)\n"
    assert local() == (111, b"", text)


def test_a_missing_home_defers(local: Local, home: Path) -> None:
    home.rename(home.parent / "away")
    text = b"Unable to switch to " + os.fsencode(home) + b": No such file or directory. (#4.3.0)\n"
    assert local() == (111, b"", text)


def test_a_fifo_or_a_directory_of_that_name_is_passed_over(local: Local, home: Path) -> None:
    os.mkfifo(home / ".qmail-list", 0o600)
    (home / ".qmail-other").mkdir()
    dot(home, ".qmail-default", "./Maildir/\n")
    assert local("list").status == local("other").status == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_an_unreadable_qmail_file_is_not_passed_over(tmp_path: Path, home: Path) -> None:
    dot(home, ".qmail-list", "&elsewhere@example.net\n", 0o000)
    dot(home, ".qmail-default", "./Maildir/\n")
    os.chown(home, 20001, 20001)
    (tmp_path / "errors").touch()
    (tmp_path / "errors").chmod(0o666)
    pid = os.fork()
    if not pid:
        status = 70
        try:
            os.setgroups([])
            os.setresgid(20001, 20001, 20001)
            os.setresuid(20001, 20001, 20001)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(os.open(tmp_path / "errors", os.O_WRONLY), 2)
            words = ["joe", str(home), "joe-list", "-", "list", "example.org", "", "./Maildir/"]
            status = program.main(["qmail-local", *words], {})
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 111
    text = b"Unable to open .qmail-list: Permission denied. (#4.3.0)\n"
    assert (tmp_path / "errors").read_bytes() == text


def test_n_describes_and_delivers_nothing(local: Local, home: Path) -> None:
    dot(home, ".qmail", "./Maildir/\n./Mailbox\n|touch reached\n&a@b\nc@d\n")
    home.chmod(0o1700)
    run = local(options=("-n",))
    assert run == (
        0,
        b"maildir ./Maildir/\nmbox ./Mailbox\nprogram touch reached\n"
        b"forward a@b\nforward c@d\ndid 2+2+1\n",
        b"Warning: home directory is sticky.\n",
    )
    assert delivered(home) == []
    assert sorted(os.listdir(home)) == [".qmail", "Maildir"]


def test_the_last_option_counts(local: Local, home: Path) -> None:
    assert local(options=("-nN",)).status == 0
    assert len(delivered(home)) == 1


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["joe", "/h", "joe", "", "", "example.org", "s"],
        ["joe", "/h", "joe", "", "", "example.org", "s", "./Maildir/", "x"],
        ["joe", "h", "joe", "", "", "example.org", "s", "./Maildir/"],
        ["-x", "joe", "/h", "joe", "", "", "example.org", "s", "./Maildir/"],
    ],
)
def test_wrong_usage(tmp_path: Path, words: list[str]) -> None:
    run = fork(tmp_path, ["qmail-local", *words], {}, b"")
    assert (run.status, run.errors[:19]) == (100, b"qmail-local: usage:")


@pytest.fixture
def queue_program(tmp_path: Path) -> str:
    """A program for QMAILQUEUE that keeps what it gets."""
    path = tmp_path / "queue-program"
    path.write_text(
        f"#!/bin/sh\ncat > {tmp_path}/q.message\ncat <&1 > {tmp_path}/q.envelope\n"
        'exit "${Q_STATUS:-0}"\n'
    )
    path.chmod(0o755)
    return str(path)


def test_forwards_go_out_together_with_our_line_in_front(
    local: Local, home: Path, tmp_path: Path, queue_program: str
) -> None:
    dot(home, ".qmail", "&a@x.example\n./Maildir/\nb@y.example\n")
    run = local(env={"QMAILQUEUE": queue_program})
    assert run.status == 0
    did, qp = run.output.splitlines()
    assert did == b"did 1+2+0"
    assert qp.startswith(b"qp ") and qp[3:].isdigit()
    line = b"Delivered-To: joe@example.org\n"
    assert (tmp_path / "q.message").read_bytes() == line + MESSAGE
    envelope = b"Fsam@example.net\0Ta@x.example\0Tb@y.example\0\0"
    assert (tmp_path / "q.envelope").read_bytes() == envelope


@pytest.mark.parametrize(
    ("files", "sender", "expected"),
    [
        ((".qmail-list-owner",), "sam@x", b"joe-list-owner@example.org"),
        (
            (".qmail-list-owner", ".qmail-list-owner-default"),
            "sam@x",
            b"joe-list-owner-@example.org-@[]",
        ),
        ((".qmail-list-owner",), "", b""),
        ((".qmail-list-owner",), "#@[]", b"#@[]"),
    ],
)
def test_owner_files_receive_the_bounces_of_a_list(
    local: Local,
    home: Path,
    tmp_path: Path,
    queue_program: str,
    files: tuple[str, ...],
    sender: str,
    expected: bytes,
) -> None:
    dot(home, ".qmail-list", "&a@x.example\n", 0o700)
    for name in files:
        dot(home, name, "&owner@x.example\n")
    assert local("list", sender=sender, env={"QMAILQUEUE": queue_program}).status == 0
    envelope = (tmp_path / "q.envelope").read_bytes()
    assert envelope == b"F" + expected + b"\0Ta@x.example\0\0"


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        ("31", 100, b"mail server permanently rejected message (#5.3.0)"),
        ("53", 111, b"qq write error or disk full (#4.3.0)"),
    ],
)
def test_a_forward_that_the_queue_refuses(
    local: Local, home: Path, queue_program: str, status: str, code: int, text: bytes
) -> None:
    dot(home, ".qmail", "&a@x.example\n")
    run = local(env={"QMAILQUEUE": queue_program, "Q_STATUS": status})
    assert run == (code, b"", b"Unable to forward message: " + text + b".\n")
