"""Control files: a few lines of text in control/ below the qmail home.

The format is qmail's (qmail-control(9)): trailing blanks and tabs are stripped; in
list files blank lines and lines that start with ``#`` are skipped; a one-line file is
its first line.
"""

import os

QMAIL_HOME = "/var/qmail"


class ControlError(Exception):
    """A control file is missing that must exist, cannot be read, or does not parse."""


def enter_home(env: dict[str, str]) -> None:
    """Change to the qmail home: ``QMAIL_HOME`` in env, for tests, or /var/qmail.

    Raises:
        ControlError: the directory does not exist or cannot be entered.
    """
    home = env.get("QMAIL_HOME", QMAIL_HOME)
    try:
        os.chdir(home)
    except OSError as error:
        raise ControlError(f"unable to chdir to {home}: {error.strerror}") from error


def read_file(name: str) -> bytes | None:
    """Return the bytes of control/NAME, or None when there is no such file.

    Raises:
        ControlError: the file exists and cannot be read.
    """
    try:
        fd = os.open("control/" + name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ControlError(f"unable to read control/{name}: {error.strerror}") from error
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    except OSError as error:
        raise ControlError(f"unable to read control/{name}: {error.strerror}") from error
    finally:
        os.close(fd)
    return b"".join(chunks)


def parse_line(content: bytes) -> bytes:
    """Return the first line of content without its trailing blanks and tabs."""
    return content.split(b"\n", 1)[0].rstrip(b" \t")


def parse_lines(content: bytes) -> list[bytes]:
    """Return the lines of a list file, stripped, without blank and comment lines."""
    stripped = (line.rstrip(b" \t") for line in content.split(b"\n"))
    return [line for line in stripped if line and not line.startswith(b"#")]


def read_line(name: str, *, or_me: bool = False) -> bytes | None:
    """Return the first line of control/NAME; with or_me that of control/me as fallback.

    Raises:
        ControlError: a file exists and cannot be read.
    """
    content = read_file(name)
    if content is None and or_me:
        content = read_file("me")
    return None if content is None else parse_line(content)


def read_lines(name: str) -> list[bytes] | None:
    """Return the lines of the list file control/NAME, or None when there is none.

    Raises:
        ControlError: the file exists and cannot be read.
    """
    content = read_file(name)
    return None if content is None else parse_lines(content)


def read_number(name: str, default: int) -> int:
    """Return the unsigned number in control/NAME, default when there is no such file.

    Raises:
        ControlError: the file cannot be read, or its first line is not a number.
    """
    line = read_line(name)
    if line is None:
        return default
    if not line.isdigit():
        raise ControlError(f"control/{name}: not a number: {line[:40]!r}")
    return int(line)
