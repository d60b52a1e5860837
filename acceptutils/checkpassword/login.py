"""What a client typed as its name, and how it comes into a query: as a value, never as syntax."""

import re
from collections.abc import Callable
from typing import NamedTuple

_PLACEHOLDER = re.compile(r"\{(\w*)\}")
PLACES = ("login", "local", "domain")


class Login(NamedTuple):
    """A name as it was typed: ``alice@example.org``, or only ``alice``."""

    login: bytes

    @property
    def local(self) -> bytes:
        """What is before the last ``@``; everything when there is none."""
        return self.login.rpartition(b"@")[0] if b"@" in self.login else self.login

    @property
    def domain(self) -> bytes:
        """What is behind the last ``@``, empty when there is none."""
        return self.login.rpartition(b"@")[2] if b"@" in self.login else b""

    def part(self, place: str) -> bytes:
        """Return what stands for ``{login}``, ``{local}`` or ``{domain}``."""
        return {"login": self.login, "local": self.local, "domain": self.domain}[place]


def check_template(template: str) -> str:
    """Return template if it names the user in places that `fill` knows.

    Raises:
        ValueError: it has other places, or none that tells one user from another.
    """
    places = _PLACEHOLDER.findall(template)
    if unknown := set(places) - set(PLACES):
        raise ValueError(f"{{{min(unknown)}}} is none of {{login}} {{local}} {{domain}}")
    if not {"login", "local"} & set(places):
        raise ValueError("neither {login} nor {local} is in it: everybody would be the same")
    return template


def fill(template: str, write: Callable[[str], str]) -> str:
    """Return template with write(place) in each place."""
    return _PLACEHOLDER.sub(lambda found: write(found[1]), template)


def as_text(template: str, login: Login) -> str | None:
    """Return template with the plain parts of login in it, None when that is no text."""
    try:
        return fill(template, lambda place: login.part(place).decode())
    except UnicodeDecodeError:
        return None
