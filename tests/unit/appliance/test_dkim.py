"""``postern dkim``: keys are made, kept, changed, and never left readable."""

import io
import os
import sys

import pytest

from appliance import dkim, dkim_admin, store
from appliance.layout import Layout
from appliance.store import Store

DOMAIN = "example.org"


@pytest.fixture
def ours(places: Layout) -> Layout:
    """An appliance with a domain that has a key."""
    with store.locked(places):
        store.save(places, Store().with_domains(DOMAIN))
    dkim.ensure(places, [DOMAIN], ["ed25519"])
    return places


def run(places: Layout, *words: str) -> int:
    return dkim_admin.main(["dkim", *words], {}, places)


def test_a_domain_gets_its_keys_once(places: Layout) -> None:
    assert dkim.ensure(places, [DOMAIN, "a.example"], ["ed25519"]) == [DOMAIN, "a.example"]
    before = dkim.selectors(places, DOMAIN)
    assert dkim.ensure(places, [DOMAIN, "b.example"], ["ed25519"]) == ["b.example"]
    assert dkim.selectors(places, DOMAIN) == dkim.used(places, DOMAIN) == before


def test_a_domain_that_is_no_longer_signed_for_gets_no_new_key(ours: Layout) -> None:
    dkim.use(ours, DOMAIN)
    assert dkim.ensure(ours, [DOMAIN], ["ed25519"]) == []


def test_both_algorithms(places: Layout) -> None:
    dkim.ensure(places, [DOMAIN], ["rsa", "ed25519"])
    keys = {dkim.algorithm(dkim.read(places, DOMAIN, s)) for s in dkim.used(places, DOMAIN)}
    assert keys == {"rsa", "ed25519"}


def test_only_the_daemons_group_can_read_a_key(ours: Layout) -> None:
    folder = dkim.folder(ours, DOMAIN)
    for path in (ours.dkim, folder):
        assert os.stat(path).st_mode & 0o777 == 0o750
    for name in os.listdir(folder):
        assert os.stat(f"{folder}/{name}").st_mode & 0o777 == 0o640


def test_a_key_is_changed(ours: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    (old,) = dkim.used(ours, DOMAIN)
    assert run(ours, "new", "Example.org", "--algorithm", "ed25519") == 0
    line = capsys.readouterr().out
    new = line.split("._domainkey")[0]
    assert new == old + "2"
    assert line.startswith(f'{new}._domainkey.{DOMAIN}.\tIN TXT "v=DKIM1; k=ed25519; p=')
    assert dkim.used(ours, DOMAIN) == [old]
    assert run(ours, "use", DOMAIN, new) == 0
    assert dkim.used(ours, DOMAIN) == [new]
    capsys.readouterr()
    assert run(ours, "list") == 0
    assert capsys.readouterr().out == (
        f"{DOMAIN}\t{old}\ted25519\t-\n{DOMAIN}\t{new}\ted25519\tin use\n"
    )
    assert run(ours, "del", DOMAIN, new) == 1
    assert run(ours, "del", DOMAIN, old) == 0
    assert dkim.selectors(ours, DOMAIN) == [new]


def test_a_key_is_brought_along(
    ours: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pem = dkim.read(ours, DOMAIN, dkim.used(ours, DOMAIN)[0])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(pem)))
    assert run(ours, "import", DOMAIN, "mail") == 0
    assert dkim.read(ours, DOMAIN, "mail") == pem
    assert capsys.readouterr().out.startswith(f"mail._domainkey.{DOMAIN}.\tIN TXT")


@pytest.mark.parametrize("content", [b"", b"no key", b"\xff\n"])
def test_what_is_no_key_is_not_kept(
    ours: Layout, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert run(ours, "import", DOMAIN, "mail") == 1
    assert "mail" not in dkim.selectors(ours, DOMAIN)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["new", "other.example"], 1),
        (["new", "../x"], 1),
        (["new", DOMAIN, "--selector", "../x"], 1),
        (["new", DOMAIN, "--selector", "A"], 1),
        (["new", DOMAIN, "--algorithm", "dsa"], 100),
        (["use", DOMAIN, "missing"], 1),
        (["use", DOMAIN], 100),
        (["del", DOMAIN, "missing"], 1),
        (["list", "other.example"], 1),
        ([], 100),
        (["--help"], 0),
    ],
)
def test_what_cannot_be_done(ours: Layout, words: list[str], status: int) -> None:
    before = dkim.selectors(ours, DOMAIN), dkim.used(ours, DOMAIN)
    assert run(ours, *words) == status
    assert (dkim.selectors(ours, DOMAIN), dkim.used(ours, DOMAIN)) == before


def test_a_taken_selector_is_not_overwritten(ours: Layout) -> None:
    (name,) = dkim.selectors(ours, DOMAIN)
    before = dkim.read(ours, DOMAIN, name)
    assert run(ours, "new", DOMAIN, "--selector", name) == 1
    assert dkim.read(ours, DOMAIN, name) == before
