"""qmail-pop3d: dialogues over real Maildirs, byte for byte."""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyqmail.pop3d import maildrop, program
from pyqmail.pop3d.maildrop import seen_name
from pyqmail.pop3d.transfer import Encoder, Top

FIRST = b"Subject: one\n\nbody\n"
SECOND = b"Subject: two\n\n.dot\n..\nno end"


def put(path: Path, content: bytes, age: int) -> None:
    path.write_bytes(content)
    os.utime(path, (1e9 - age, 1e9 - age))


@pytest.fixture
def maildir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "Maildir"
    for name in ("tmp", "new", "cur"):
        (path / name).mkdir(parents=True)
    put(path / "new" / "200.b", SECOND, 1)
    put(path / "cur" / "100.a:2,F", FIRST, 2)
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def serve(maildir, script, monkeypatch):
    """Return a function: pieces -> output. ``between`` is called before the last piece."""

    def run(*pieces: bytes, between=None, argv=("qmail-pop3d", "Maildir")) -> bytes:
        os.chdir(maildir.parent)
        channel = script(pieces)
        if between is not None:
            receive = channel._receive

            def interrupted(deadline: float) -> bytes:
                if len(channel.pieces) == 1:
                    between()
                return receive(deadline)

            monkeypatch.setattr(channel, "_receive", interrupted)
        monkeypatch.setattr(program, "Channel", lambda *_: channel)
        assert program.main(list(argv), {}) == 0
        return channel.output

    return run


def files(maildir: Path) -> list[str]:
    return sorted(str(p.relative_to(maildir)) for p in maildir.rglob("*") if p.is_file())


ONE = b"Subject: one\r\n\r\nbody\r\n.\r\n"
TWO = b"Subject: two\r\n\r\n..dot\r\n...\r\nno end\r\n.\r\n"


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        (b"STAT\r\n", b"+OK 2 47\r\n"),
        (b"LIST\r\n", b"+OK \r\n1 19\r\n2 28\r\n.\r\n"),
        (b"list 2\r\n", b"+OK 2 28\r\n"),
        (b"UIDL\r\n", b"+OK \r\n1 100.a\r\n2 200.b\r\n.\r\n"),
        (b"UIDL   1\r\n", b"+OK 1 100.a\r\n"),
        (b"RETR 1\r\n", b"+OK \r\n" + ONE),
        (b"RETR 2\r\n", b"+OK \r\n" + TWO),
        (b"TOP 2 0\r\n", b"+OK \r\nSubject: two\r\n\r\n.\r\n"),
        (b"TOP 2 1\r\n", b"+OK \r\nSubject: two\r\n\r\n..dot\r\n.\r\n"),
        (b"TOP 2 99\r\n", b"+OK \r\n" + TWO),
        (b"NOOP\r\n", b"+OK \r\n"),
        (b"LAST\r\n", b"+OK 0\r\n"),
        (b"DELE 1\r\nLAST\r\n", b"+OK \r\n+OK 1\r\n"),
        (b"DELE 1\r\nSTAT\r\n", b"+OK \r\n+OK 1 28\r\n"),
        (b"DELE 1\r\nLIST\r\n", b"+OK \r\n+OK \r\n2 28\r\n.\r\n"),
        (b"DELE 1\r\nDELE 1\r\n", b"+OK \r\n-ERR already deleted\r\n"),
        (b"DELE 1\r\nRETR 1\r\n", b"+OK \r\n-ERR already deleted\r\n"),
        (b"DELE 1\r\nRSET\r\nLIST 1\r\n", b"+OK \r\n+OK \r\n+OK 1 19\r\n"),
        (b"CAPA\r\n", b"+OK capability list follows\r\nTOP\r\nUIDL\r\nPIPELINING\r\n.\r\n"),
        (b"RETR\r\n", b"-ERR syntax error\r\n"),
        (b"DELE x\r\n", b"-ERR syntax error\r\n"),
        (b"RETR 0\r\n", b"-ERR no such message\r\n"),
        (b"RETR 3\r\n", b"-ERR no such message\r\n"),
        (b"LIST %s\r\n" % (b"9" * 4000), b"-ERR no such message\r\n"),
        (b"USER x\r\n", b"-ERR unimplemented\r\n"),
        (b"\r\n", b"-ERR unimplemented\r\n"),
    ],
)
def test_answer(serve, said: bytes, answered: bytes) -> None:
    assert serve(said + b"RSET\r\nQUIT\r\n") == b"+OK \r\n" + answered + b"+OK \r\n+OK \r\n"


def test_quit_deletes_and_marks_what_was_read(serve, maildir: Path) -> None:
    serve(b"RETR 2\r\nDELE 1\r\nQUIT\r\n")
    assert files(maildir) == ["cur/200.b:2,S"]


def test_top_is_not_reading(serve, maildir: Path) -> None:
    serve(b"TOP 2 1\r\nQUIT\r\n")
    assert files(maildir) == ["cur/100.a:2,F", "new/200.b"]


def test_dropped_connection_deletes_nothing(serve, maildir: Path) -> None:
    before = files(maildir)
    serve(b"RETR 2\r\nDELE 1\r\nDELE 2\r\nQUI")
    assert files(maildir) == before


def test_deleted_message_that_was_read_is_not_moved(serve, maildir: Path) -> None:
    serve(b"RETR 2\r\nDELE 2\r\nQUIT\r\n")
    assert files(maildir) == ["cur/100.a:2,F"]


def test_oldest_first_and_equal_times_by_name(serve, maildir: Path) -> None:
    put(maildir / "new" / "050.c", b"x\n", 1)
    assert b"\r\n1 100.a\r\n2 050.c\r\n3 200.b\r\n" in serve(b"UIDL\r\nQUIT\r\n")


def test_hidden_files_directories_and_fifos_are_no_messages(serve, maildir: Path) -> None:
    (maildir / "cur" / ".hidden").write_bytes(b"x")
    (maildir / "cur" / "directory").mkdir()
    os.mkfifo(maildir / "new" / "fifo")
    assert b"+OK 2 47\r\n" in serve(b"STAT\r\nQUIT\r\n")


def test_message_moved_meanwhile_is_found(serve, maildir: Path) -> None:
    def move() -> None:
        (maildir / "new" / "200.b").rename(maildir / "cur" / "200.b:2,S")

    output = serve(b"NOOP\r\n", b"RETR 2\r\nDELE 2\r\nQUIT\r\n", between=move)
    assert output == b"+OK \r\n+OK \r\n+OK \r\n" + TWO + b"+OK \r\n+OK \r\n"
    assert files(maildir) == ["cur/100.a:2,F"]


def test_message_removed_meanwhile_is_an_error_to_read_but_not_to_delete(
    serve, maildir: Path
) -> None:
    def remove() -> None:
        (maildir / "new" / "200.b").unlink()

    output = serve(b"NOOP\r\n", b"RETR 2\r\nDELE 2\r\nQUIT\r\n", between=remove)
    assert output.endswith(b"-ERR unable to open that message\r\n+OK \r\n+OK \r\n")


def test_message_that_cannot_be_deleted_is_told(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlink(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(maildrop.os, "unlink", unlink)
    assert serve(b"DELE 1\r\nQUIT\r\n").endswith(b"-ERR unable to unlink all deleted messages\r\n")


def test_quota_gets_to_know_what_was_deleted(serve, maildir: Path) -> None:
    (maildir / "maildirsize").write_text("1000S\n500 5\n")
    put(maildir / "new" / "300.c,S=77", FIRST, 0)
    put(maildir / "cur" / "400.d:2,ST", FIRST, -1)  # does not count already
    put(maildir / "new" / "500.e", FIRST, -2)

    def gone() -> None:
        (maildir / "new" / "500.e").unlink()

    serve(b"DELE 1\r\nDELE 3\r\nDELE 4\r\nDELE 5\r\n", b"QUIT\r\n", between=gone)
    assert files(maildir) == ["maildirsize", "new/200.b"]
    written = (maildir / "maildirsize").read_text()
    assert written == f"1000S\n500 5\n{-77 - len(FIRST)} -2\n"


def test_without_a_quota_nothing_is_noted(serve, maildir: Path) -> None:
    serve(b"DELE 1\r\n", b"QUIT\r\n")
    assert files(maildir) == ["new/200.b"]


def test_reading_never_overwrites_a_message(serve, maildir: Path) -> None:
    (maildir / "cur" / "200.b:2,S").write_bytes(b"another\n")
    serve(b"RETR 2\r\nRETR 3\r\nQUIT\r\n")
    assert "new/200.b" in files(maildir)
    assert (maildir / "cur" / "200.b:2,S").read_bytes() == b"another\n"


def test_control_characters_in_a_name_do_not_reach_the_client(serve, maildir: Path) -> None:
    put(maildir / "new" / "300\r\n.\r\n", b"", 0)
    assert b"3 300??.??\r\n" in serve(b"UIDL\r\nQUIT\r\n")


def test_empty_message(serve, maildir: Path) -> None:
    put(maildir / "new" / "300.c", b"", 0)
    assert b"+OK \r\n+OK \r\n.\r\n+OK \r\n" in serve(b"RETR 3\r\nQUIT\r\n")


def test_line_without_end_is_refused(serve) -> None:
    assert serve(b"NOOP\r\n", b"x" * 50000) == b"+OK \r\n+OK \r\n-ERR line too long\r\n"


def test_nul_is_refused(serve) -> None:
    assert serve(b"NO\0OP\r\nNOOP\r\n") == b"+OK \r\n-ERR line too long\r\n"


def test_no_maildir(serve, tmp_path: Path) -> None:
    refusal = b"-ERR this user has no $HOME/Maildir\r\n"
    assert serve(b"", argv=("qmail-pop3d", "elsewhere")) == refusal
    assert serve(b"", argv=("qmail-pop3d",)) == refusal


def test_no_cur(serve, maildir: Path) -> None:
    (maildir / "cur").rename(maildir / "gone")
    assert serve(b"") == b"-ERR unable to scan $HOME/Maildir\r\n"


def test_old_files_in_tmp_are_removed(serve, maildir: Path) -> None:
    put(maildir / "tmp" / "old", b"", 0)
    (maildir / "tmp" / "fresh").write_bytes(b"")
    put(maildir / "tmp" / ".old", b"", 0)
    # What cannot be removed must not keep the rest, in whatever order they are found.
    for number in range(3):
        (maildir / "tmp" / f"directory{number}").mkdir()
        os.utime(maildir / "tmp" / f"directory{number}", (0, 0))
        put(maildir / "tmp" / f"old{number}", b"", 0)
    serve(b"QUIT\r\n")
    left = sorted(p.name for p in (maildir / "tmp").iterdir() if not p.is_dir())
    assert left == [".old", "fresh"]


def test_pipelined_retrievals_do_not_pile_up(serve, maildir: Path, script, monkeypatch) -> None:
    put(maildir / "new" / "900.big", b"x" * 60 + b"\n" * 20000, 0)
    sizes: list[int] = []
    send = script.send
    monkeypatch.setattr(
        script, "send", lambda self, data: (sizes.append(len(data)), send(self, data))[1]
    )
    serve(b"RETR 3\r\n" * 200 + b"QUIT\r\n")
    assert max(sizes) < 250_000


@pytest.mark.parametrize(
    ("name", "seen"),
    [("1.a", "1.a:2,S"), ("1.a:2,", "1.a:2,S"), ("1.a:2,RF", "1.a:2,FRS"), ("1:1,x", "1:2,S")],
)
def test_seen_name(name: str, seen: str) -> None:
    assert seen_name(name) == seen


TEXT = st.lists(st.sampled_from([b"\n", b".", b"a", b"\n\n", b"\r\n", b"\n."]), max_size=20)


@given(TEXT, st.lists(st.integers(1, 4), max_size=20), st.none() | st.integers(0, 4))
def test_any_split_of_a_message_gives_the_same_bytes(
    pieces: list[bytes], sizes: list[int], lines: int | None
) -> None:
    text = b"".join(pieces)
    whole = text.split(b"\n")
    unfinished = whole.pop()
    wanted = [line + b"\n" for line in whole] + ([unfinished] if unfinished else [])
    if lines is not None:
        blank = next((i for i, line in enumerate(wanted) if line == b"\n"), len(wanted))
        wanted = wanted[: blank + 1 + lines]
    expected = b"".join(
        (b"." if line.startswith(b".") else b"") + line.removesuffix(b"\n") + b"\r\n"
        for line in wanted
    )
    encoder = Encoder()
    top = None if lines is None else Top(lines)
    output = b""
    for size in itertools.chain(sizes, itertools.repeat(1000)):
        chunk, text = text[:size], text[size:]
        if not chunk or (top and top.done):
            break
        output += encoder.feed(top.feed(chunk) if top else chunk)
    assert output + encoder.finish() == expected + b".\r\n"


DIALOGUE = b"STAT\r\nRETR 1\r\nTOP 2 1\r\nDELE 2\nLIST\r\nRSET\r\nQUIT\r\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(cuts=st.sets(st.integers(1, len(DIALOGUE) - 1)))
def test_any_split_of_the_commands_gives_the_same_output(serve, cuts: set[int]) -> None:
    offsets = [0, *sorted(cuts), len(DIALOGUE)]
    pieces = [DIALOGUE[a:b] for a, b in itertools.pairwise(offsets)]
    assert serve(*pieces) == (
        b"+OK \r\n+OK 2 47\r\n+OK \r\n" + ONE + b"+OK \r\nSubject: two\r\n\r\n..dot\r\n.\r\n"
        b"+OK \r\n+OK \r\n1 19\r\n.\r\n+OK \r\n+OK \r\n"
    )


POP3_WORDS = st.sampled_from([b"RETR", b"TOP", b"LIST", b"DELE", b" ", b"1", b"2", b"\r\n", b"-"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(words=st.lists(POP3_WORDS | st.binary(max_size=4), max_size=30))
def test_any_input_gets_as_many_answers(serve, words: list[bytes]) -> None:
    said = b"".join(words).replace(b"\0", b"") + b"\r\n"
    output = serve(said)
    answers = [line for line in output.split(b"\r\n") if line[:3] in (b"+OK", b"-ER")]
    lines = said.split(b"\n")[:-1]
    assert len(answers) == 1 + len(lines) or any(
        line.rstrip(b"\r").lower().split(b" ")[0] == b"quit" for line in lines
    )


def test_rehearsal_reads_and_deletes_its_own_message_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    unlink = os.unlink
    monkeypatch.setattr(os, "unlink", lambda path: (removed.append(path), unlink(path)))
    program.rehearse(["qmail-pop3d", "Maildir"], {"TMPDIR": str(tmp_path)})
    assert removed[0] == "new/1.rehearsal"  # by the session, after QUIT
    assert list(tmp_path.iterdir()) == []
