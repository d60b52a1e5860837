"""A control file of ``name = value`` lines, for programs with more than one thing to set.

Blank lines and lines that begin with ``#`` are skipped; a line that begins with a blank
continues the one before it. A name that is not known, or there twice, is a mistake.
"""

from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from ucspi import control
from ucspi.control import ControlError

Value = TypeVar("Value")

MOST_SECONDS = 60


class Controls:
    """The lines of one file, taken by name."""

    def __init__(self, file: str, values: dict[str, str]) -> None:
        self._file = file
        self._values = values

    def mistake(self, what: str) -> ControlError:
        """Return the error that says what is wrong in the file."""
        return ControlError(f"control/{self._file}: {what}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def text(self, name: str, default: str = "") -> str:
        """Return a value, default where there is none."""
        return self._values.get(name, default)

    def required(self, name: str) -> str:
        """Return a value that must be there.

        Raises:
            ControlError: it is not.
        """
        if name not in self._values:
            raise self.mistake(f"{name} is missing")
        return self._values[name]

    def choice(self, name: str, choices: Collection[str], default: str) -> str:
        """Return a value that is one of choices.

        Raises:
            ControlError: it is none of them.
        """
        value = self.text(name, default)
        if value not in choices:
            raise self.mistake(f"{name} is none of {' '.join(choices)}")
        return value

    def read(self, name: str, reader: Callable[[str], Value], default: str) -> Value:
        """Return what reader makes of a value, or of default.

        Raises:
            ControlError: reader raised ValueError.
        """
        try:
            return reader(self.text(name, default))
        except ValueError as error:
            raise self.mistake(f"{name}: {error}") from error


def seconds(text: str) -> int:
    """Return a time limit, well below what a mail program waits for an answer.

    Raises:
        ValueError: it is none.
    """
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_SECONDS):
        raise ValueError(f"not a number of seconds from 1 to {MOST_SECONDS}")
    return int(text)


def read(file: str, known: Collection[str]) -> Controls:
    """Read control/FILE, below the current directory.

    Raises:
        ControlError: it does not exist, or is not as it must be.
    """
    content = control.read_file(file)
    if content is None:
        raise ControlError(f"control/{file} does not exist")
    return Controls(file, parse(file, content, known))


def parse(file: str, content: bytes, known: Collection[str]) -> dict[str, str]:
    """Return name -> value.

    Raises:
        ControlError: says the line, and never what its value is.
    """
    values: dict[str, str] = {}
    last = ""
    for number, raw in enumerate(content.split(b"\n"), 1):
        where = f"control/{file}: line {number}"
        try:
            line = raw.decode().rstrip()
        except UnicodeDecodeError as error:
            raise ControlError(f"{where}: not UTF-8") from error
        if not line or line.startswith("#"):
            continue
        if line[0] in " \t":
            if not last:
                raise ControlError(f"{where}: continues nothing")
            values[last] += " " + line.strip()
            continue
        name, equals, value = line.partition("=")
        last = name.strip()
        if not equals or last not in known:
            raise ControlError(f"{where}: none of {' '.join(sorted(known))}, and =")
        if last in values:
            raise ControlError(f"{where}: {last} is there twice")
        values[last] = value.strip()
    return values


def read_secret(file: str) -> bytes | None:
    """Return the password in control/FILE, its first line; None when there is no such file.

    Raises:
        ControlError: it is there and cannot be read, or is empty.
    """
    line = control.read_line(file)
    if line == b"":
        raise ControlError(f"control/{file} is empty")
    return line
