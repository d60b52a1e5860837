"""DMARC as RFC 9989 has it: whose policy, and what is aligned."""

import pytest

from pyqmail.mailauth import dmarc
from pyqmail.mailauth.dmarc import DmarcResult

Table = dict[str, str]


def evaluate(
    table: Table,
    domain: str,
    spf: str | None = None,
    dkim: tuple[str, ...] = (),
    missing: tuple[str, ...] = (),
) -> DmarcResult:
    def texts(name: str) -> list[bytes]:
        return [text.encode() for text in table.get(name, "").split("|") if text]

    return dmarc.evaluate(domain, spf, dkim, texts, lambda name: name not in missing)


REJECT = {"_dmarc.example.org": "v=DMARC1; p=reject; sp=quarantine; np=reject"}


@pytest.mark.parametrize(
    ("domain", "spf", "dkim", "result"),
    [
        ("example.org", "example.org", (), "pass"),
        ("example.org", None, ("example.org",), "pass"),
        ("example.org", None, ("other.example", "example.org"), "pass"),
        ("example.org", "bounces.example.org", (), "pass"),
        ("example.org", None, ("mail.example.org",), "pass"),
        ("news.example.org", None, ("mail.example.org",), "pass"),
        ("example.org", "other.example", ("other.example",), "fail"),
        ("example.org", None, ("notexample.org",), "fail"),
        ("example.org", "org", ("org",), "fail"),
        ("example.org", None, (), "fail"),
    ],
)
def test_alignment(domain: str, spf: str | None, dkim: tuple[str, ...], result: str) -> None:
    assert evaluate(REJECT, domain, spf, dkim).result == result


def test_strict_alignment() -> None:
    table = {"_dmarc.example.org": "v=DMARC1; p=none; adkim=s; aspf=s"}
    assert evaluate(table, "example.org", "a.example.org", ("a.example.org",)).result == "fail"
    assert evaluate(table, "example.org", "example.org").result == "pass"


@pytest.mark.parametrize(
    ("record", "domain", "policy"),
    [
        ("v=DMARC1; p=reject", "example.org", "reject"),
        ("v=DMARC1;p=quarantine", "example.org", "quarantine"),
        ("v=DMARC1; p=reject; t=y", "example.org", "quarantine"),
        ("v=DMARC1; p=quarantine; t=y", "example.org", "none"),
        ("v=DMARC1; rua=mailto:a@example.org", "example.org", "none"),
        ("v=DMARC1; p=nonsense", "example.org", "none"),
        ("v=DMARC1; p=REJECT ; x=y", "example.org", "reject"),
        ("v=DMARC1; p=none; sp=reject", "a.example.org", "reject"),
        ("v=DMARC1; p=reject", "a.example.org", "reject"),
        ("v=DMARC1; p=none; np=reject", "gone.example.org", "reject"),
        ("v=DMARC1; p=none; np=reject", "a.example.org", "none"),
        ("v=DMARC1; p=none; sp=quarantine; np=reject", "x.gone.example.org", "quarantine"),
    ],
)
def test_policy(record: str, domain: str, policy: str) -> None:
    found = evaluate({"_dmarc.example.org": record}, domain, missing=("gone.example.org",))
    assert (found.result, found.policy) == ("fail", policy)


@pytest.mark.parametrize(
    "text",
    ["", "v=spf1 -all", "v=DMARC2; p=reject", "p=reject; v=DMARC1", "v=DMARC1x; p=reject", "\xff"],
)
def test_what_is_no_record(text: str) -> None:
    assert dmarc.parse(text.encode()) is None


def test_two_records_are_none() -> None:
    table = {"_dmarc.example.org": "v=DMARC1; p=reject|v=DMARC1; p=none"}
    assert evaluate(table, "example.org").result == "none"


def test_other_texts_beside_the_record_do_not_matter() -> None:
    table = {"_dmarc.example.org": "something|v=DMARC1; p=reject"}
    assert evaluate(table, "example.org").policy == "reject"


def test_the_own_record_comes_before_the_organizations() -> None:
    table = REJECT | {"_dmarc.a.example.org": "v=DMARC1; p=none"}
    assert evaluate(table, "a.example.org").policy == "none"
    assert evaluate(table, "b.a.example.org").policy == "quarantine"


def test_a_public_suffix_does_not_align_its_registrants() -> None:
    """psd=y: the organization is one label below."""
    table = {
        "_dmarc.bank": "v=DMARC1; p=reject; psd=y",
        "_dmarc.good.bank": "v=DMARC1; p=reject",
    }
    assert evaluate(table, "good.bank", None, ("evil.bank",)).result == "fail"
    assert evaluate(table, "good.bank", None, ("a.good.bank",)).result == "pass"
    assert evaluate(table, "other.bank", None, ("evil.bank",)) == DmarcResult(
        "fail", "other.bank", "reject"
    )


def test_an_organization_within_another() -> None:
    """psd=n: this one is an organization, whatever is above."""
    table = REJECT | {"_dmarc.unit.example.org": "v=DMARC1; p=none; psd=n"}
    assert evaluate(table, "unit.example.org", None, ("example.org",)).result == "fail"
    assert evaluate(table, "a.unit.example.org", None, ("b.unit.example.org",)).result == "pass"
    assert evaluate(table, "example.org", None, ("unit.example.org",)).result == "fail"


def test_a_walk_is_short_however_long_the_name() -> None:
    name = ".".join(["a"] * 120 + ["example", "org"])
    asked = dmarc.names(name)
    assert len(asked) == dmarc.MOST_QUERIES
    assert asked[0] == name
    assert asked[1].count(".") == 6
    assert asked[-1] == "org"
    assert dmarc.names("a.example.org") == ["a.example.org", "example.org", "org"]
    assert dmarc.names("org") == ["org"]


def test_no_name_is_asked_for_twice() -> None:
    asked: list[str] = []

    def texts(name: str) -> list[bytes]:
        asked.append(name)
        return []

    dmarc.evaluate("a.example.org", "b.example.org", ["c.example.org"], texts, lambda name: True)
    assert len(asked) == len(set(asked))
