"""Any split of any dialogue into reads gives the same bytes out and the same attempts."""

import base64
import itertools
from collections.abc import Callable
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from acceptutils.authup import program
from acceptutils.authup.client import READ_SIZE, Client, Limits
from acceptutils.authup.dialogue import Dialogue, Settings
from acceptutils.authup.lines import AUTH_LIMIT
from acceptutils.authup.pop3 import Pop3
from acceptutils.authup.program import Connection
from acceptutils.authup.record import Ended, Request
from acceptutils.authup.smtp import Smtp
from acceptutils.ucspitls import Availability

SETTINGS = Settings(b"mail.example.org", (b"PIPELINING",), False, Availability.UNAVAILABLE)


class FakeClient(Client):
    """A client that has sent its bytes in given pieces, then its end of file."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__(Limits(60))
        self.pieces = pieces
        self.received = b""

    def read(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def write(self, data: bytes | bytearray) -> None:
        self.received += data

    def see_off(self) -> None:
        pass

    def last_words(self, data: bytes) -> None:
        self.received += data


class FakeBroker:
    """A broker that says no, and keeps in mind what it was asked."""

    gone = False

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes, bytes]] = []

    def fileno(self) -> int:
        return -1

    def attempt(self, request: Request, started: Callable[[int], None]) -> Ended:
        user, password, timestamp = request.credentials
        self.asked.append((user, bytes(password.reveal()), timestamp))
        started(4711)
        return Ended(1, False)

    def close(self) -> None:
        pass


Outcome = tuple[bytes, int, list[tuple[bytes, bytes, bytes]]]


def converse(protocol: type[Dialogue], pieces: list[bytes], tries: int = 3) -> Outcome:
    """Return the bytes out, the exit status and the attempts of one connection."""
    broker = FakeBroker()
    client = FakeClient([piece for piece in pieces if piece])
    connection = Connection(protocol(SETTINGS, b"1.2"), client, {}, tries)
    with (
        mock.patch.object(program.Broker, "start", lambda *_: broker),
        mock.patch.object(program, "close_all_but"),
        mock.patch.object(program.os, "geteuid", lambda: 1),
        mock.patch.object(program.log, "event"),
    ):
        status = connection.run(["checkpassword"], None)
    return client.received, status, broker.asked


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(edge, len(data)) for edge in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


PLAIN = b"AUTH PLAIN " + base64.b64encode(b"\0alice\0swordfish")
SMTP_LINES = st.sampled_from(
    [
        b"EHLO c",
        b"HELO c",
        b"NOOP",
        b"QUIT",
        b"MAIL FROM:<>",
        b"",
        b"AUTH LOGIN",
        b"AUTH PLAIN",
        b"AUTH PLAIN =",
        b"*",
        base64.b64encode(b"alice"),
        base64.b64encode(b"\0alice\0swordfish"),
        PLAIN,
        b"x" * 4090,
        b"x" * 4100,
        b"nul\0",
    ]
)
POP3_LINES = st.sampled_from(
    [b"USER alice", b"PASS sword fish", b"PASS", b"CAPA", b"NOOP", b"QUIT", b"STAT", b"", b"\0"]
)
ENDS = st.sampled_from([b"\r\n", b"\n"])
CUTS = st.lists(st.integers(0, 400), max_size=8)


def text(lines: list[tuple[bytes, bytes]], tail: bytes) -> bytes:
    return b"".join(line + end for line, end in lines) + tail


@given(st.lists(st.tuples(SMTP_LINES, ENDS), max_size=10), st.binary(max_size=5), CUTS)
def test_any_split_of_smtp(lines: list[tuple[bytes, bytes]], tail: bytes, cuts: list[int]) -> None:
    data = text(lines, tail)
    assert converse(Smtp, cut(data, cuts)) == converse(Smtp, [data])


@given(st.lists(st.tuples(POP3_LINES, ENDS), max_size=10), st.binary(max_size=5), CUTS)
def test_any_split_of_pop3(lines: list[tuple[bytes, bytes]], tail: bytes, cuts: list[int]) -> None:
    data = text(lines, tail)
    assert converse(Pop3, cut(data, cuts)) == converse(Pop3, [data])


def test_split_at_every_byte() -> None:
    data = b"EHLO c\r\nAUTH LOGIN\r\nYQ==\r\n*\r\n" + PLAIN + b"\r\nNOOP\r\nQUIT\r\n"
    whole = converse(Smtp, [data])
    assert whole[1] == 0
    assert whole[2] == [(b"alice", b"swordfish", b"")]
    assert converse(Smtp, [bytes([byte]) for byte in data]) == whole
    for edge in range(len(data)):
        assert converse(Smtp, [data[:edge], data[edge:]]) == whole


@given(st.lists(st.binary(max_size=200), max_size=10), st.sampled_from([Smtp, Pop3]))
def test_any_bytes_get_well_formed_replies(pieces: list[bytes], protocol: type[Dialogue]) -> None:
    received, status, _ = converse(protocol, pieces)
    assert status in (0, 1)
    assert received.endswith(b"\r\n")
    starts = (b"+OK", b"-ERR") if protocol is Pop3 else (b"2", b"3", b"4", b"5")
    replies = received[:-2].split(b"\r\n")
    if protocol is Smtp:
        assert all(line[:1] in starts and line[3:4] in b" -" for line in replies)
    else:
        capa = {b"USER", b"PIPELINING", b"."}
        assert all(line.startswith(starts) or line in capa for line in replies)


@given(st.integers(1, 4), st.lists(st.booleans(), min_size=1, max_size=12))
def test_tries_are_counted_whatever_comes_between(tries: int, attempts: list[bool]) -> None:
    data = b"".join(PLAIN + b"\r\n" if attempt else b"AUTH PLAIN =\r\n" for attempt in attempts)
    received, status, asked = converse(Smtp, [data + b"NOOP\r\nQUIT\r\n"], tries)
    wrong = attempts.count(True)
    assert len(asked) == received.count(b"535 ") == min(wrong, tries)
    assert received.endswith(b"221 mail.example.org\r\n") is (wrong < tries)
    assert status == (0 if wrong < tries else 1)


def test_memory_is_bounded_whatever_the_client_sends() -> None:
    held = 0

    class Watched(program.LineReader):
        def feed(self, data: bytes) -> None:
            nonlocal held
            super().feed(data)
            held = max(held, len(self))

    with mock.patch.object(program, "LineReader", Watched):
        flood = [b"AUTH PLAIN " + b"A" * 5000] + [b"A" * READ_SIZE] * 1000
        received, status, _ = converse(Smtp, flood)
    assert received.endswith(b"500 line too long (#5.5.2)\r\n")
    assert status == 1
    assert held <= AUTH_LIMIT + READ_SIZE
