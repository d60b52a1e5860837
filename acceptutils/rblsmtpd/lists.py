"""Lists of addresses in the DNS: what is asked of them, and what an answer means (RFC 5782).

An IPv4 address ``192.0.2.99`` is listed in ``list.example`` when the name
``99.2.0.192.list.example`` has an A record, an IPv6 address by its 32 hexadecimal digits in
the same way. The record is a code from 127.0.0.0/8; a TXT record says why.
"""

import re
import socket
from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

TEMPORARY, PERMANENT = 451, 553
LOOKUP_FAILED = "temporary RBL lookup error"

# Lists answer so when they cannot answer: the question came by way of a resolver that they
# do not serve, or there were too many (Spamhaus and others).
_ERROR_CODES = "127.255.255."
_CODES = "127."  # anything else is some provider's answer to names that do not exist

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?\Z")
_OCTET = r"(?:\d{1,3}|\[[0-9.;]+\])"
_PATTERN = re.compile(rf"({_OCTET})\.({_OCTET})\.({_OCTET})\.({_OCTET})\Z")
_RANGE = re.compile(r"(\d{1,3})(?:\.\.(\d{1,3}))?\Z")


class Codes:
    """A pattern of addresses: four numbers, or in brackets what may stand there, ``[2..4;10]``."""

    def __init__(self, text: str) -> None:
        """Parse text.

        Raises:
            ValueError: it is no such pattern.
        """
        match = _PATTERN.match(text)
        if match is None:
            raise ValueError(f"not a code: {text}")
        self._octets = [_numbers(octet) for octet in match.groups()]

    def __contains__(self, address: str) -> bool:
        numbers = map(int, address.split("."))
        return all(number in allowed for number, allowed in zip(numbers, self._octets, strict=True))


def _numbers(octet: str) -> frozenset[int]:
    found: set[int] = set()
    for item in octet.strip("[]").split(";"):
        match = _RANGE.match(item)
        if match is None:
            raise ValueError(f"not a number or a range: {item}")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last <= 255:
            raise ValueError(f"not a range up to 255: {item}")
        found |= set(range(first, last + 1))
    return frozenset(found)


class Source(NamedTuple):
    """One list, and whether those in it are kept out or let in."""

    zone: str
    allows: bool = False
    codes: Codes | None = None  # of all that it lists, only these
    text: str = ""  # what the client is told, instead of the list's own words


def parse(text: str, allows: bool = False) -> Source:
    """Return the list that an option names: ``zone[=codes][:text]``.

    Raises:
        ValueError: the zone is no name, or the codes are none.
    """
    place, _, said = text.partition(":")
    zone, equals, codes = place.partition("=")
    if not _NAME.match(zone) or ".." in zone:
        raise ValueError(f"not the name of a list: {zone}")
    return Source(zone.rstrip("."), allows, Codes(codes) if equals else None, said)


class Question(NamedTuple):
    """A name in the DNS, and the type of the records that are wanted."""

    name: str
    kind: str  # "A" or "TXT"


def reverse(address: str) -> str:
    """Return the name of an address below a list's zone.

    Raises:
        ValueError: it is no address.
    """
    try:
        if ":" in address:
            return ".".join(reversed(socket.inet_pton(socket.AF_INET6, address).hex()))
        return ".".join(map(str, reversed(socket.inet_pton(socket.AF_INET, address))))
    except OSError:
        raise ValueError(f"not an address: {address}") from None


def questions(source: Source, address: str) -> list[Question]:
    """Return what is to be asked about an address: whether it is listed, and why.

    Raises:
        ValueError: it is no address.
    """
    name = f"{reverse(address)}.{source.zone}"
    wanted = [Question(name, "A")]
    if not source.allows and not source.text:
        wanted.append(Question(name, "TXT"))
    return wanted


class Found(Enum):
    """What a list says of an address."""

    LISTED = auto()
    UNLISTED = auto()
    FAILED = auto()  # it cannot be said now


class Finding(NamedTuple):
    """What a list says of an address, and why, in its words or in ours."""

    found: Found
    why: str = ""


# The records that were found; None for a look-up that failed.
Records = Sequence[str] | None


def judge(source: Source, address: str, codes: Records, texts: Records) -> Finding:
    """Return what the records of a list say of an address.

    Args:
        codes: its A records.
        texts: its TXT records, which are not needed where the list has words of ours.
    """
    if codes is None:
        return Finding(Found.FAILED, "no answer")
    said = source.text or (texts[0] if texts else f"%IP% is listed in {source.zone}")
    why = said.replace("%IP%", address)
    if not codes:
        # A list may have nothing but a text, if all is taken that it lists.
        alone = bool(texts) and source.codes is None and not source.allows and not source.text
        return Finding(Found.LISTED, why) if alone else Finding(Found.UNLISTED)
    good = [c for c in codes if c.startswith(_CODES) and not c.startswith(_ERROR_CODES)]
    if not good:
        return Finding(Found.FAILED, f"answers {codes[0]}")
    if source.codes is None or any(code in source.codes for code in good):
        return Finding(Found.LISTED, why)
    return Finding(Found.UNLISTED)


class Refusal(NamedTuple):
    """What every command is answered with."""

    code: int
    text: str


class Undecided(Exception):
    """A list that comes before the others has not answered yet."""


def decide(
    sources: Sequence[Source],
    findings: Sequence[Finding | None],
    *,
    permanent: bool,
    closed: bool,
) -> Refusal | None:
    """Return the refusal, or None for a client that is let in: the first list that lists counts.

    Args:
        findings: one for each source; None: still to come.
        permanent: refuse for good (-b), not for now.
        closed: a list that cannot be asked keeps clients out (-c); not so, it lets them in.

    Raises:
        Undecided: it depends on a finding that is still to come.
    """
    code = PERMANENT if permanent else TEMPORARY
    for source, finding in zip(sources, findings, strict=True):
        if finding is None:
            raise Undecided
        if source.allows:
            if finding.found is Found.LISTED:
                return None
            if finding.found is Found.FAILED:
                if not closed:
                    return None
                code = TEMPORARY  # whoever is refused now might have been let in
        elif finding.found is Found.LISTED:
            return Refusal(code, finding.why)
        elif finding.found is Found.FAILED and closed:
            return Refusal(TEMPORARY, LOOKUP_FAILED)
    return None
