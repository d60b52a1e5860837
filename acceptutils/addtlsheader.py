"""qmail-qfilter-addtlsheader: say in the message how it came in over TLS.

A filter, stdin to stdout, for qmail-qfilter. With SSL_CIPHER and SSL_PROTOCOL set, one
header comes first::

    Received: (ucspitls acceptutils authup USER TLSv1.3 TLS_AES_256_GCM_SHA384); 9 Nov 2026 ...
"""

import os
import time

from ucspi import log

COPY_SIZE = 65536
VALUE_LIMIT = 320  # bytes; the line stays below the 998 of RFC 5322, 2.1.1

# qmail-queue's own exit codes, which qmail-qfilter hands on.
EXIT_WRITE = 53
EXIT_READ = 54

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# What a comment may hold as it is (RFC 5322, 3.2.2): printable ASCII, but neither its
# own parentheses nor the backslash.
_COMMENT = frozenset(range(33, 127)) - frozenset(b"()\\")


def comment_word(value: str) -> bytes:
    """Return value as one word of a header comment.

    Names come from clients and servers: whatever could end the comment, the line or the
    header becomes ``?``.
    """
    raw = value.encode("utf-8", "surrogateescape")[:VALUE_LIMIT]
    return bytes(byte if byte in _COMMENT else ord("?") for byte in raw)


def date(seconds: float) -> bytes:
    """Return a date of RFC 5322 (3.3) as qmail writes it: UTC, without the day's name.

    Args:
        seconds: since the epoch.
    """
    now = time.gmtime(seconds)
    month = MONTHS[now.tm_mon - 1]
    clock = f"{now.tm_hour:02}:{now.tm_min:02}:{now.tm_sec:02}"
    return f"{now.tm_mday} {month} {now.tm_year} {clock} -0000".encode("ascii")


def header(env: dict[str, str], seconds: float) -> bytes:
    """Return the header for a connection; nothing when it was not over TLS.

    Args:
        env: SSL_PROTOCOL and SSL_CIPHER; FIXSMTPIOTLS (fixsmtpio started TLS) or else
            AUTHUP_USER.
        seconds: now, since the epoch.
    """
    if "SSL_CIPHER" not in env or "SSL_PROTOCOL" not in env:
        return b""
    words = [b"ucspitls"]
    if "FIXSMTPIOTLS" in env:
        words += [b"acceptutils", b"fixsmtpio"]
    elif "AUTHUP_USER" in env:
        words += [b"acceptutils", b"authup", comment_word(env["AUTHUP_USER"])]
    words += [comment_word(env["SSL_PROTOCOL"]), comment_word(env["SSL_CIPHER"])]
    return b"Received: (%b); %b\n" % (b" ".join(words), date(seconds))


def main(argv: list[str], env: dict[str, str]) -> int:
    """Copy the message from descriptor 0 to 1, behind the header; see the module.

    Returns:
        0; 53 when it cannot be written, 54 when it cannot be read.
    """
    chunk = header(env, time.time())
    while True:
        try:
            _write(chunk)
        except OSError as error:
            log.event(env, f"{argv[0]}: unable to write: {error.strerror}")
            return EXIT_WRITE
        try:
            chunk = os.read(0, COPY_SIZE)
        except OSError as error:
            log.event(env, f"{argv[0]}: unable to read: {error.strerror}")
            return EXIT_READ
        if not chunk:
            return 0


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]
