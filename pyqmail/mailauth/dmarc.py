"""DMARC (RFC 9989): whether an author's domain stands behind a message, and what it asks for.

The organizational domain is found by walking up the DNS, so no list of public suffixes has
to be kept up to date.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

# The walk queries at most eight names (RFC 9989, 4.10).
MOST_QUERIES = 8
POLICIES = ("none", "quarantine", "reject")
TESTING = {"reject": "quarantine", "quarantine": "none"}  # t=y: one step less (4.7)

Texts = Callable[[str], list[bytes]]  # a name -> its TXT records
Exists = Callable[[str], bool]


class Record(NamedTuple):
    """A DMARC record (RFC 9989, 4.7)."""

    policy: str = "none"  # p=
    subdomains: str = ""  # sp=
    missing: str = ""  # np=, for names that do not exist
    strict_dkim: bool = False
    strict_spf: bool = False
    suffix: str = "u"  # psd=
    testing: bool = False


class DmarcResult(NamedTuple):
    """What DMARC says about one author's domain."""

    result: str  # pass, fail, none; temperror is the caller's to find
    domain: str
    policy: str = "none"  # what the domain asks for, when it failed


def parse(text: bytes) -> Record | None:
    """Return the record in a TXT record, None if it is none."""
    tags: dict[str, str] = {}
    for number, part in enumerate(text.decode("ascii", "replace").split(";")):
        name, equals, value = part.partition("=")
        name, value = name.strip().lower(), value.strip()
        if number == 0 and (name, value) != ("v", "DMARC1"):
            return None
        if equals:
            tags.setdefault(name, value.lower())
    policy = tags.get("p", "none")
    return Record(
        policy=policy if policy in POLICIES else "none",
        subdomains=tags.get("sp", "") if tags.get("sp") in POLICIES else "",
        missing=tags.get("np", "") if tags.get("np") in POLICIES else "",
        strict_dkim=tags.get("adkim") == "s",
        strict_spf=tags.get("aspf") == "s",
        suffix=tags.get("psd", "u"),
        testing=tags.get("t") == "y",
    )


class Walker:
    """Walks up the DNS from domains, and asks for no name twice."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._known: dict[str, Record | None] = {}

    def record(self, domain: str) -> Record | None:
        """Return the record of a domain; None if there is none, or more than one."""
        if domain not in self._known:
            found = [r for text in self._texts(f"_dmarc.{domain}") if (r := parse(text))]
            self._known[domain] = found[0] if len(found) == 1 else None
        return self._known[domain]

    def walk(self, domain: str) -> list[tuple[str, Record]]:
        """Return the records from a domain upwards, with the domains that have them."""
        found = []
        for name in names(domain):
            if record := self.record(name):
                found.append((name, record))
                if record.suffix in ("n", "y"):
                    break
        return found

    def organization(self, domain: str) -> str:
        """Return the organizational domain of a domain (RFC 9989, 4.10.2)."""
        found = self.walk(domain)
        for name, record in found:
            if record.suffix == "n":
                return name
            if record.suffix == "y" and name != domain:
                return _below(domain, name)
        return min((name for name, _ in found), key=_labels, default=domain)


def names(domain: str) -> list[str]:
    """Return the names that a walk asks for, first the domain itself."""
    labels = domain.split(".")
    rest = labels[1:] if len(labels) <= MOST_QUERIES else labels[-(MOST_QUERIES - 1) :]
    return [domain] + [".".join(rest[i:]) for i in range(len(rest))]


def _labels(name: str) -> int:
    return name.count(".")


def _below(domain: str, suffix: str) -> str:
    """Return the name one label longer than suffix on the way to domain."""
    labels = domain.split(".")
    return ".".join(labels[-(suffix.count(".") + 2) :])


def evaluate(
    domain: str,
    spf: str | None,
    dkim: Iterable[str],
    texts: Texts,
    exists: Exists,
) -> DmarcResult:
    """Judge a message by one author's domain.

    Args:
        domain: of the address in From, in small letters.
        spf: the domain that SPF passed for, None if it did not pass.
        dkim: the domains of the signatures that passed.
        texts: looks TXT records up.
        exists: says whether there is a name.
    """
    walker = Walker(texts)
    own = walker.record(domain)
    if own:
        record, policy = own, own.policy
    else:
        applicable = _inherited(walker, domain)
        if applicable is None:
            return DmarcResult("none", domain)
        record = applicable
        policy = record.subdomains or record.policy
        if record.missing and not exists(domain):
            policy = record.missing
    aligned = [(name, record.strict_dkim) for name in dkim]
    if spf:
        aligned.append((spf, record.strict_spf))
    if any(_aligned(walker, domain, name, strict) for name, strict in aligned):
        return DmarcResult("pass", domain, policy)
    return DmarcResult("fail", domain, TESTING.get(policy, policy) if record.testing else policy)


def _inherited(walker: Walker, domain: str) -> Record | None:
    """Return the record that holds for a domain without one (RFC 9989, 4.10.1)."""
    organization = walker.organization(domain)
    found = dict(walker.walk(domain))
    if organization in found:
        return found[organization]
    # The organization has none: that of the public suffix above it holds.
    return next((record for record in found.values() if record.suffix == "y"), None)


def _aligned(walker: Walker, domain: str, name: str, strict: bool) -> bool:
    if name == domain:
        return True
    return not strict and walker.organization(name) == walker.organization(domain)
