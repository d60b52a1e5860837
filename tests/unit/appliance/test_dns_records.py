"""``postern dns``."""

from pathlib import Path

import pytest

from appliance import dkim, dns_records, settings_sources
from appliance.layout import Layout

ENV = {"POSTERN_HOSTNAME": "mail.example.org", "POSTERN_SERVICES": "mx,submissions"}


@pytest.fixture(autouse=True)
def no_file_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_sources, "DEFAULT_CONFIG", str(tmp_path / "none.toml"))


def test_records_of_a_domain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = ENV | {"POSTERN_POSTMASTER": "boss@example.net"}
    assert dns_records.main(["dns", "Example.org"], env, Layout(str(tmp_path))) == 0
    records = [line for line in capsys.readouterr().out.splitlines() if line[0] != ";"]
    assert records == [
        "example.org.\tIN MX 10 mail.example.org.",
        'example.org.\tIN TXT "v=spf1 mx -all"',
        '_dmarc.example.org.\tIN TXT "v=DMARC1; p=quarantine; rua=mailto:boss@example.net"',
        "_submissions._tcp.example.org.\tIN SRV 0 1 465 mail.example.org.",
    ]


def test_keys_that_mail_is_signed_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = Layout(str(tmp_path))
    Path(places.dkim).mkdir(parents=True)
    dkim.ensure(places, ["example.org"], ["ed25519"])
    assert dns_records.main(["dns", "example.org"], ENV, places) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "_domainkey" in line]
    name, _, text = line.partition("\tIN TXT ")
    assert name == f"{dkim.used(places, 'example.org')[0]}._domainkey.example.org."
    assert text.startswith('"v=DKIM1; k=ed25519; p=')


def test_without_a_domain_every_one_of_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env = ENV | {"POSTERN_DOMAINS": "b.example,a.example"}
    assert dns_records.main(["dns"], env, Layout(str(tmp_path))) == 0
    said = capsys.readouterr().out
    assert said.index("a.example.\tIN MX") < said.index("b.example.\tIN MX")


def test_what_is_no_domain(tmp_path: Path) -> None:
    assert dns_records.main(["dns", "a b"], ENV, Layout(str(tmp_path))) == 100
    assert dns_records.main(["dns", "--help"], ENV, Layout(str(tmp_path))) == 100
