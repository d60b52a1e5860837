"""qmail-qread: list the messages of the queue and their recipients."""

import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from pyqmail.queue import layout, visit
from pyqmail.received import MONTHS

CHANNELS = ("local", "remote")
_PRINTABLE = bytes(code if 32 <= code <= 126 else ord("_") for code in range(256))


class Recipient(NamedTuple):
    """One recipient of a message."""

    channel: str
    done: bool
    address: bytes


class Message(NamedTuple):
    """What the queue knows of a message."""

    number: int
    birth: float
    size: int
    sender: bytes
    bouncing: bool
    recipients: list[Recipient]


def render(message: Message) -> bytes:
    """Return the lines that netqmail's qmail-qread prints for a message."""
    t = time.gmtime(message.birth)
    when = b"%d %s %d %02d:%02d:%02d GMT" % (
        *(t.tm_mday, MONTHS[t.tm_mon - 1], t.tm_year),
        *(t.tm_hour, t.tm_min, t.tm_sec),
    )
    sender = message.sender.translate(_PRINTABLE)
    bouncing = b" bouncing" if message.bouncing else b""
    lines = [b"%s  #%d  %d  <%s> %s\n" % (when, message.number, message.size, sender, bouncing)]
    for recipient in message.recipients:
        mark = b"  done\t" if recipient.done else b"\t"
        address = recipient.address.translate(_PRINTABLE)
        lines.append(b"%s%s\t%s\n" % (mark, recipient.channel.encode(), address))
    return b"".join(lines)


def parse_recipients(channel: str, content: bytes) -> list[Recipient]:
    """Return what a file in local/ or remote/ says."""
    records = content.split(b"\0")[:-1]
    return [Recipient(channel, record[:1] == b"D", record[1:]) for record in records]


def messages() -> Iterator[Message]:
    """Yield the preprocessed messages of the queue in the current directory.

    One that ends while it is looked at is left out.

    Raises:
        OSError: a directory cannot be read.
    """
    for split in range(layout.SPLIT):
        for name in sorted(os.listdir(f"info/{split}")):
            if name.isdigit():
                try:
                    yield _message(int(name))
                except FileNotFoundError:
                    continue


def _message(number: int) -> Message:
    with open(layout.info(number), "rb") as file:
        birth = os.fstat(file.fileno()).st_mtime
        sender = file.read().partition(b"\0")[0][1:]
    recipients: list[Recipient] = []
    for channel in CHANNELS:
        try:
            with open(layout.split(channel, number), "rb") as file:
                recipients += parse_recipients(channel, file.read())
        except FileNotFoundError:
            continue
    size = os.stat(layout.mess(number)).st_size
    bouncing = os.path.exists(layout.bounce(number))
    return Message(number, birth, size, sender, bouncing, recipients)


def main(argv: list[str], env: dict[str, str]) -> int:
    """Run ``qmail-qread``; see `visit.look`."""
    return visit.look(argv, env, _print_messages)


def _print_messages() -> None:
    for message in messages():
        sys.stdout.buffer.write(render(message))
    sys.stdout.buffer.flush()
