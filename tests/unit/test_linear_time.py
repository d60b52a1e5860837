"""Readers of foreign bytes take time in proportion to them, whatever they are.

Each is given something hostile, and eight times as much of it. What is linear takes eight
times as long, what is quadratic sixty-four times; the line is drawn between, with room for
a machine that has other things to do.
"""

import time
from collections.abc import Callable

import pytest

from acceptutils import ucspitls
from acceptutils.authup import credentials
from acceptutils.authup.lines import LineReader, LineTooLong
from acceptutils.checkpassword import store
from acceptutils.fixsmtpio.glob import Glob
from acceptutils.server import proxy
from pyqmail import quote
from pyqmail.header import addresslist
from pyqmail.header.fields import HeaderReader
from pyqmail.local import mbox
from pyqmail.pop3d.transfer import Encoder, Top
from pyqmail.qmqp import netstring
from pyqmail.queue.envelope import EnvelopeReader
from pyqmail.queue.wire import FrameReader
from pyqmail.remote import wire
from pyqmail.remote.reply import ReplyError, ReplyReader
from pyqmail.smtp.data import Decoder, HopCounter, StrayLineEnd
from ucspi import cdb

TIMES_MORE = 8
TOO_SLOW = 30  # times as long, for eight times as much
NOTICEABLE = 0.02  # seconds; below, a clock tells noise
ATTEMPTS = 5

Read = Callable[[bytes], object]


def in_chunks(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def header(size: int) -> Read:
    def read(data: bytes) -> None:
        reader = HeaderReader()
        for chunk in in_chunks(data, size):
            reader.feed(chunk)
        reader.finish()

    return read


def lines(data: bytes) -> None:
    reader = LineReader()
    try:
        for chunk in in_chunks(data, 8192):
            reader.feed(chunk)
            while reader.take(lambda _: len(data)) is not None:
                pass
    except LineTooLong:
        pass


def decoded(data: bytes) -> None:
    decoder = Decoder()
    try:
        for chunk in in_chunks(data, 65536):
            decoder.feed(chunk)
    except StrayLineEnd:
        pass


def hops(data: bytes) -> None:
    counter = HopCounter()
    for chunk in in_chunks(data, 100):
        counter.feed(chunk)


def replies(data: bytes) -> None:
    reader = ReplyReader()
    try:
        for chunk in in_chunks(data, 16384):
            reader.feed(chunk)
            while reader.take():
                pass
    except ReplyError:
        pass


def frames(data: bytes) -> None:
    reader = FrameReader()
    for chunk in in_chunks(b"q" + data, 65536):
        reader.feed(chunk)


def envelope(data: bytes) -> None:
    reader = EnvelopeReader()
    for chunk in in_chunks(b"Fa\0" + data, 65536):
        reader.feed(chunk)


def netstrings(data: bytes) -> None:
    chunks = iter([*in_chunks(data, 65536), b"!"])
    reader = netstring.Reader(lambda: next(chunks))
    try:
        while True:
            reader.string(1000)
    except netstring.NetstringError:
        pass


def pop3(data: bytes) -> None:
    encoder, top = Encoder(), Top(10**9)
    for chunk in in_chunks(data, 65536):
        encoder.feed(top.feed(chunk))


def forgiving(read: Read, *errors: type[Exception]) -> Read:
    def forgive(data: bytes) -> None:
        try:
            read(data)
        except errors:
            pass

    return forgive


ADDRESSES = forgiving(addresslist.every_address, addresslist.ListError)
REWRITE: Read = lambda data: addresslist.rewrite(data, lambda host: host + b".x")  # noqa: E731
BASE64 = forgiving(credentials.decode_plain, credentials.Malformed)

# Name of the reader, reader, what is repeated, how often at first.
HOSTILE: list[tuple[str, Read, bytes, int]] = [
    *(
        (f"addresses {unit!r}", ADDRESSES, unit, 600)
        for unit in (
            *(
                b"(",
                b")",
                b"()",
                b"(\\",
                b'"',
                b'"\\',
                b'""',
                b"\\",
                b"<",
                b"<>",
                b"a@",
                b"@",
                b".",
            ),
            *(b"a.", b"a ", b"a,", b"a@b,", b"a b@c,", b":", b";", b"[", b"[]", b"a@b ", b"<@a:b>"),
            *(b" ", b"\n ", b"a@b(c)", b"\xff", b"<a@b> ", b"g:a@b;", b'"a" <b@c>,'),
        )
    ),
    *((f"rewriting {unit!r}", REWRITE, unit, 400) for unit in (b"a,", b"a@b ", b"a@b(c).d,")),
    ("a long header line", header(65536), b"a", 100_000),
    ("a long header line in pieces", header(16), b"a", 20_000),
    ("many header lines", header(65536), b"a:b\n", 5000),
    ("command lines", lines, b"NOOP\r\n", 5000),
    ("one command line", lines, b"a", 50_000),
    ("base64", BASE64, b"AAAA", 20_000),
    ("TLS variables", lambda data: ucspitls.parse_blob(data[:60_000] + b"\0\0"), b"SSL_A=\0", 900),
    ("PROXY", forgiving(proxy.parse, proxy.ProxyError), b"PROXY TCP4 ", 1000),
    ("accounts", forgiving(store.parse, store.StoreError), b"[", 20_000),
    ("glob", Glob(b"*a*a*a*a*b").match, b"a", 2000),
    ("DATA of dots", decoded, b"\r\n..", 50_000),
    ("DATA of line ends", decoded, b"\r\n", 100_000),
    ("DATA that nearly ends", decoded, b"\r\n.\r", 50_000),
    ("hops", hops, b"received:\n", 5000),
    ("replies", replies, b"250-x\r\n" * 9 + b"250 x\r\n", 500),
    ("half a reply", replies, b"250-", 20_000),
    ("frames", frames, b"\0\0\0\1x", 5000),
    ("recipients", envelope, b"Tx\0", 5000),
    ("netstrings", netstrings, b"1:x,", 2000),
    *(
        (f"onto the wire {unit!r}", lambda data: list(wire.encode(in_chunks(data, 65536))), unit, n)
        for unit, n in ((b"\r", 20_000), (b"\r" * 999 + b"x", 20), (b"\r\n.", 20_000))
    ),
    ("a row of CRs onto the wire", lambda data: list(wire.encode([data + b"x"])), b"\r", 4000),
    ("mbox", lambda data: list(mbox.quoted(in_chunks(data, 65536))), b">", 100_000),
    ("mbox lines", lambda data: list(mbox.quoted(in_chunks(data, 65536))), b">From \n", 10_000),
    ("pop3", pop3, b"\n.", 50_000),
    ("quoting", quote.quote, b"a.", 20_000),
    ("quoting what is odd", quote.quote, b'"\\', 20_000),
    ("beginnings of a key", cdb.prefix_hashes, b"-", 10_000),
]


def seconds(read: Read, data: bytes) -> float:
    """Return the processor time that reading takes."""
    before = time.process_time()
    read(data)
    return time.process_time() - before


@pytest.mark.parametrize(
    ("read", "unit", "count"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE]
)
def test_more_of_it_takes_no_more_time_each(read: Read, unit: bytes, count: int) -> None:
    little, much = unit * count, unit * (count * TIMES_MORE)
    for _ in range(ATTEMPTS):
        long = seconds(read, much)
        if long < NOTICEABLE or long < TOO_SLOW * seconds(read, little):
            return
    pytest.fail(f"{TIMES_MORE} times as much took {long:.3f} s, over {TOO_SLOW} times as long")


def test_the_measure_finds_what_is_quadratic() -> None:
    def slow(data: bytes) -> None:
        for end in range(len(data)):
            sum(data[:end])

    with pytest.raises(pytest.fail.Exception, match="times as long"):
        test_more_of_it_takes_no_more_time_each(slow, b"a", 400)
