"""What filters have in common that put lines in front of a message, and look at its header.

Such a filter may be given another one to become, so that two filters are one process.
"""

import os
import re
import stat
from typing import NamedTuple

from ucspi import chain, log

CHUNK = 65536
HEADER_LIMIT = 1 << 20  # bytes; a header is held in memory until it is whole
OWN_TEXT = 4  # descriptor for the text of status 82, see qmail-qfilter(8)

EXIT_CUSTOM = 82
EXIT_REFUSED = 31
EXIT_DEFERRED = 71
EXIT_WRITE = 53
EXIT_READ = 54

END_OF_HEADER = re.compile(rb"(?:\A|(?<=\n))\r?\n")


class Refusal(NamedTuple):
    """Why a message does not go on."""

    for_good: bool
    text: bytes  # for the SMTP client


HEADER_TOO_BIG = Refusal(True, b"sorry, that message header is too big (#5.3.4)")


def regular_file() -> int:
    """Return a descriptor of the message that can be read from any place: 0 or a copy of it.

    Raises:
        OSError: there is no room for a copy.
    """
    if stat.S_ISREG(os.fstat(0).st_mode):
        return 0
    copy = os.memfd_create("message", os.MFD_CLOEXEC)
    while data := os.read(0, CHUNK):
        write_all(copy, data)
    return copy


def read_header(message: int) -> tuple[bytes, int | None]:
    """Return the header and where the rest begins, the empty line; None for one too long.

    Raises:
        OSError: it cannot be read.
    """
    header = b""
    while len(header) <= HEADER_LIMIT:
        data = os.pread(message, CHUNK, len(header))
        header += data
        if found := END_OF_HEADER.search(header):
            return header[: found.start()], found.start()
        if not data:
            return header, len(header)
    return b"", None


def go_on(
    argv: list[str],
    env: dict[str, str],
    message: int,
    lines: bytes,
    replaced: tuple[bytes, int] | None = None,
) -> int:
    """Write lines and the message to descriptor 1, through the next filter if there is one.

    Args:
        argv: our command line; what follows the first word is the next filter's.
        env: the environment.
        message: the message.
        lines: header lines to come first.
        replaced: another header, and where in the message the rest begins.
    """
    following = argv[1:]
    if not (lines or replaced or following or message):
        return 0  # a filter that writes nothing leaves the message as it is
    try:
        if replaced and following:
            message = changed_copy(message, *replaced)
            replaced = None
        write_all(1, lines)
        header, start = replaced or (b"", 0)
        os.lseek(message, start, os.SEEK_SET)
        if following:
            os.dup2(message, 0)
            return chain.run(following, env)
        write_all(1, header)
        copy(message, 1)
    except OSError as error:
        log.event(env, f"{argv[0]}: unable to write: {error.strerror}")
        return EXIT_WRITE
    return 0


def changed_copy(message: int, header: bytes, start: int) -> int:
    """Return a file with another header, and the message from start on."""
    result = os.memfd_create("message", os.MFD_CLOEXEC)
    write_all(result, header)
    os.lseek(message, start, os.SEEK_SET)
    copy(message, result)
    os.lseek(result, 0, os.SEEK_SET)
    return result


def copy(source: int, destination: int) -> None:
    """Copy from where source stands to its end."""
    while data := os.read(source, CHUNK):
        write_all(destination, data)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of data."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def refuse(name: str, refusal: Refusal, env: dict[str, str]) -> int:
    """Tell our caller why, and return the status that ends the message."""
    what = "refused" if refusal.for_good else "deferred"
    log.event(env, f"{name}: {what}: {refusal.text.decode('ascii', 'replace')}")
    try:
        write_all(OWN_TEXT, (b"D" if refusal.for_good else b"Z") + refusal.text)
    except OSError:
        return EXIT_REFUSED if refusal.for_good else EXIT_DEFERRED
    return EXIT_CUSTOM


def broken(name: str, error: OSError, env: dict[str, str]) -> int:
    """Log that the message cannot be read, and return the status for that."""
    log.event(env, f"{name}: {error}")
    return EXIT_READ
