"""Log lines: one event, one line, on standard error.

Nothing that a client sends may forge a second line or a terminal sequence: every
byte outside printable ASCII is written as ``\\xNN``.
"""

import os

STDERR = 2
LIMIT = 2000  # bytes of one event; a longer one is cut, never split


def printable(text: str | bytes) -> str:
    """Return text with every character outside printable ASCII escaped."""
    if isinstance(text, str):
        if text.isascii() and text.isprintable():
            return text
        raw = text.encode("utf-8", "surrogateescape")
    else:
        raw = text
    return "".join(chr(c) if 32 <= c < 127 else f"\\x{c:02x}" for c in raw)


def session_suffix(env: dict[str, str]) -> str:
    """Return `` ip=ADDRESS session=ID`` as far as the environment knows them."""
    suffix = ""
    if address := env.get("TCPREMOTEIP"):
        suffix += f" ip={address}"
    if session := env.get("SESSION_ID"):
        suffix += f" session={session}"
    return suffix


def event(env: dict[str, str], text: str) -> None:
    """Write text, the client's address and the session's id as one line to stderr.

    A log that cannot be written (a full pipe, a closed one) never ends a session.
    """
    line = printable(text)[:LIMIT] + printable(session_suffix(env)) + "\n"
    try:
        os.write(STDERR, line.encode("ascii"))
    except OSError:
        pass
