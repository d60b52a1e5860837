"""The scan filter before scanners that say what clamd and rspamd say, byte for byte."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pyqmail.scan import address, clamd, program, rspamd
from pyqmail.scan.address import Place, ScannerError, TooLargeError

TEXT = (
    b"Received: from unknown (HELO client.example) (192.0.2.1)\n"
    b"  by mail.example.net with SMTP; 22 Nov 2026 19:00:00 -0000\n"
    b"From: alice@example.org\n"
    b"\n" + b"a line of the body\n" * 10_000
)
Reader = Callable[[socket.socket], bytes]


def read_stream(connection: socket.socket) -> bytes:
    """Read a message as clamd does: a command, then chunks with their sizes, then none."""
    with connection.makefile("rb") as file:
        assert file.read(10) == b"zINSTREAM\0"
        message = b""
        while size := int.from_bytes(file.read(4), "big"):
            message += file.read(size)
        return message


def read_post(connection: socket.socket) -> bytes:
    """Read a request as rspamd does: a head, and as much as it announces."""
    with connection.makefile("rb") as file:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += file.readline()
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return head + file.read(size)


class Scanner:
    """A server for one connection after the other, with one answer."""

    def __init__(self, listener: socket.socket, read: Reader | None, answer: bytes) -> None:
        self.seen: list[bytes] = []
        self._listener, self._read, self._answer = listener, read, answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                if self._read:
                    self.seen.append(self._read(connection))
                with contextlib.suppress(BrokenPipeError):  # enough was heard
                    connection.sendall(self._answer)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "scanner"))
        made.listen()
        yield made
        with contextlib.suppress(OSError):  # a test may have closed it
            made.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def av(listener: socket.socket) -> Callable[..., Scanner]:
    """A function: what clamd says of every message -> a clamd."""
    return lambda answer, read=read_stream: Scanner(listener, read, answer)


def http(told: object, *, length: int = 0, status: bytes = b"200 OK") -> bytes:
    """Return rspamd's reply."""
    content = told if isinstance(told, bytes) else json.dumps(told).encode()
    head = b"HTTP/1.1 %b\r\nConnection: close\r\nServer: rspamd/3.12.1\r\n" % status
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (length or len(content)) + content


def says(action: str, **more: object) -> dict[str, object]:
    """Return what rspamd says of a message."""
    told = {"is_skipped": False, "score": 4.5, "required_score": 15.0, "action": action}
    return told | {"symbols": {}, "message-id": "undef"} | more


@pytest.fixture
def spam(listener: socket.socket) -> Callable[..., Scanner]:
    """A function: reply -> an rspamd."""
    return lambda answer, read=read_post: Scanner(listener, read, answer)


class Outcome(NamedTuple):
    """What the filter did."""

    status: int
    output: bytes
    text: bytes


Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A function: message, environment -> what the filter did, in a child."""

    def start(message: bytes = TEXT, *following: str, **env: str) -> Outcome:
        given, output, text = (os.memfd_create(name) for name in ("given", "output", "text"))
        view = memoryview(message)
        while view:
            view = view[os.write(given, view) :]
        os.lseek(given, 0, os.SEEK_SET)
        pid = os.fork()
        if not pid:
            status = 98
            try:
                for ours, wanted in ((given, 0), (output, 1), (text, 4)):
                    os.dup2(ours, wanted)
                status = program.main(["filter", *following], env)
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        read = [os.pread(place, 1 << 24, 0) for place in (output, text)]
        for descriptor in (given, output, text):
            os.close(descriptor)
        return Outcome(status, *read)

    return start


@pytest.fixture
def virus_scanner(tmp_path: Path) -> dict[str, str]:
    return {"VIRUS_SCANNER": f"clamd:{tmp_path}/scanner"}


@pytest.fixture
def spam_scanner(tmp_path: Path) -> dict[str, str]:
    return {"SPAM_SCANNER": f"rspamd:{tmp_path}/scanner"}


Env = dict[str, str]
Make = Callable[..., Scanner]


def test_without_scanners_nothing_happens(run: Run) -> None:
    assert run() == Outcome(0, b"", b"")


def test_clamd_sees_the_whole_message(run: Run, av: Make, virus_scanner: Env) -> None:
    scanner = av(b"stream: OK\0")
    assert run(**virus_scanner) == Outcome(0, b"", b"")
    assert run(TEXT, "cat", **virus_scanner) == Outcome(0, TEXT, b"")
    assert scanner.seen == [TEXT, TEXT]


def test_a_virus_is_refused_by_name(run: Run, av: Make, virus_scanner: Env) -> None:
    av(b"stream: Eicar-Test-Signature FOUND\0")
    outcome = run(**virus_scanner, SCANNER_DOWN="accept")
    assert (outcome.status, outcome.output) == (82, b"")
    assert (
        outcome.text == b"Dsorry, there is a virus in that message: Eicar-Test-Signature (#5.7.1)"
    )


TOO_LARGE = b"INSTREAM size limit exceeded. ERROR\0"


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        (b"", b"Z"),
        (b"stream: OK", b""),  # without its NUL: as with the command nINSTREAM
        (b"stream: lstat() failed: No such file or directory. ERROR\0", b"Z"),
        (b"UNKNOWN COMMAND\0", b"Z"),
        (b"x" * 10_000, b"Z"),
        (TOO_LARGE, b"D"),
    ],
)
def test_what_else_clamd_may_say(
    run: Run, av: Make, virus_scanner: Env, answer: bytes, letter: bytes
) -> None:
    av(answer)
    assert run(**virus_scanner).text[:1] == letter
    assert run(**virus_scanner, SCANNER_DOWN="accept") == Outcome(0, b"", b"")


def test_clamd_may_stop_reading(run: Run, av: Make, virus_scanner: Env) -> None:
    """It closes the connection over what is too large, with unread bytes in it."""
    av(TOO_LARGE, read=lambda connection: connection.recv(5))
    assert run(TEXT * 20, **virus_scanner).text[:1] in (b"D", b"Z")


def test_a_scanner_that_is_not_there(
    run: Run, listener: socket.socket, virus_scanner: Env, spam_scanner: Env
) -> None:
    listener.close()
    for env in (virus_scanner, spam_scanner):
        outcome = run(**env)
        assert (outcome.status, outcome.text[:1]) == (82, b"Z")
        assert run(**env, SCANNER_DOWN="accept") == Outcome(0, b"", b"")


def test_a_scanner_that_says_nothing(
    run: Run, listener: socket.socket, virus_scanner: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "SECONDS", 0.05)
    assert run(**virus_scanner).text[:1] == b"Z"


def test_rspamd_is_told_how_the_message_came(run: Run, spam: Make, spam_scanner: Env) -> None:
    scanner = spam(http(says("no action")))
    known = {
        "TCPREMOTEIP": "192.0.2.1",
        "QMAILUSER": "alice",
        "QMAILHOST": "example.org",
        "QMAILRCPTS": "bob@example.net\ncarol\r@example.net\n",
        "AUTHUP_USER": "",
        "SESSION_ID": "s-1",
    }
    outcome = run(**known, **spam_scanner)
    assert outcome == Outcome(0, b"X-Spam-Score: 4.50 / 15.00\n" + TEXT, b"")
    (seen,) = scanner.seen
    head, _, body = seen.partition(b"\r\n\r\n")
    assert body == TEXT
    first, *lines = head.split(b"\r\n")
    assert first == b"POST /checkv2 HTTP/1.1"
    assert {
        b"IP: 192.0.2.1",
        b"Helo: client.example",
        b"From: alice@example.org",
        b"Rcpt: bob@example.net",
        b"Rcpt: carol@example.net",
        b"Queue-Id: s-1",
    } <= set(lines)
    assert not [line for line in lines if line.startswith((b"User", b"Hostname"))]


@pytest.mark.parametrize("action", ["add header", "rewrite subject", "quarantine"])
def test_spam_is_marked(run: Run, spam: Make, spam_scanner: Env, action: str) -> None:
    spam(http(says(action)))
    for following in ([], ["cat"]):
        outcome = run(TEXT, *following, **spam_scanner)
        assert outcome.output == b"X-Spam: Yes\nX-Spam-Score: 4.50 / 15.00\n" + TEXT


def test_marks_that_came_with_a_message_are_removed(
    run: Run, spam: Make, spam_scanner: Env
) -> None:
    spam(http(says("no action")))
    text = b"x-spam : no\n folded\nX-Spam-Score: -9\nX-Spammer: x\n" + TEXT
    outcome = run(text, **spam_scanner)
    assert outcome.output == b"X-Spam-Score: 4.50 / 15.00\nX-Spammer: x\n" + TEXT


@pytest.mark.parametrize(
    ("action", "letter"), [("reject", b"D"), ("greylist", b"Z"), ("soft reject", b"Z")]
)
def test_a_refusal_in_rspamds_words_or_ours(
    run: Run, spam: Make, spam_scanner: Env, listener: socket.socket, action: str, letter: bytes
) -> None:
    spam(http(says(action, messages={"smtp_message": "Gtube pattern"})))
    outcome = run(**spam_scanner)
    assert (outcome.status, outcome.output, outcome.text) == (82, b"", letter + b"Gtube pattern")


@pytest.mark.parametrize("messages", [{}, None, [], {"smtp_message": ""}])
def test_a_refusal_without_words(run: Run, spam: Make, spam_scanner: Env, messages: object) -> None:
    spam(http(says("reject", messages=messages)))
    assert run(**spam_scanner).text == b"Dsorry, that message looks like spam (#5.7.1)"


def test_discard_takes_and_drops(run: Run, spam: Make, spam_scanner: Env) -> None:
    spam(http(says("discard")))
    assert run(**spam_scanner) == Outcome(99, b"", b"")


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"nonsense\r\n\r\n{}",
        http({}),
        http(b"no json"),
        http(b"[]"),
        http(b'"text"'),
        http(b"\xff"),
        http(b"[" * 100_000),
        http(says("no action") | {"score": None}),
        http(says("no action"), status=b"500 Internal"),
        http(says("no action"), length=5),
        http(says("no action"), length=5000),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"x" * (2 << 20),
    ],
    ids=range(15),
)
def test_what_is_no_verdict(run: Run, spam: Make, spam_scanner: Env, reply: bytes) -> None:
    spam(reply)
    assert run(**spam_scanner).text[:1] == b"Z"
    assert run(**spam_scanner, SCANNER_DOWN="accept") == Outcome(0, b"", b"")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("clamd:/run/clamd.sock", Place("clamd", "/run/clamd.sock", 0)),
        ("clamd:av", Place("clamd", "av", 3310)),
        ("clamd:av:99", Place("clamd", "av", 99)),
        ("clamd:[::1]:99", Place("clamd", "::1", 99)),
        ("clamd:::1", Place("clamd", "::1", 3310)),
        ("rspamd:http://spam:11333/", Place("rspamd", "spam", 11333)),
        ("rspamd:http://[2001:db8::1]", Place("rspamd", "2001:db8::1", 11333)),
    ],
)
def test_places(text: str, place: Place) -> None:
    assert address.parse(text) == place


@pytest.mark.parametrize("text", ["", "clamd", "clamd:", "av:3310", "clamd:av:0", "clamd:av:x"])
def test_what_is_no_place(run: Run, text: str) -> None:
    with pytest.raises(ValueError):
        address.parse(text)
    if text:
        assert run(VIRUS_SCANNER=text).status == 55


def test_verdicts_of_clamd() -> None:
    assert clamd.verdict(b"stream: OK\0") is None
    assert clamd.verdict(b"stream: A.B-1 FOUND\0") == b"A.B-1"
    with pytest.raises(TooLargeError):
        clamd.verdict(TOO_LARGE)
    with pytest.raises(ScannerError):
        clamd.verdict(b"")


def test_a_value_cannot_add_a_line_to_the_request() -> None:
    head = rspamd.request(Place("rspamd", "::1", 1), 0, [("Helo", b"a\r\nPass: all\0\xff")])
    assert b"\r\nHelo: aPass: all\r\n" in head
    assert b"\r\nHost: [::1]\r\n" in head
