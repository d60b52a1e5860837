"""The secrets of SRS: made once, kept, root's alone, replaced without a restart."""

import os
import stat
from pathlib import Path

import pytest

from appliance import data, render, settings_sources, srs, start
from appliance.layout import Layout
from appliance.settings import Settings
from appliance.settings_sources import SettingsError, load

ENV = {"POSTERN_HOSTNAME": "mail.example.org", "POSTERN_DOMAINS": "example.org,example.net"}
GIVEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def no_file_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_sources, "DEFAULT_CONFIG", str(tmp_path / "none.toml"))


def settings(**variables: str) -> Settings:
    return load(ENV | {f"POSTERN_{k.upper()}": v for k, v in variables.items()}).settings


def installed(places: Layout, **variables: str) -> list[str] | None:
    """Return the lines of control/srs_secrets after a start."""
    start.install_control(settings(**variables), places, ("example.org",))
    path = Path(places.control, "srs_secrets")
    return path.read_text().split() if path.exists() else None


def test_first_secret_is_made_and_stays(places: Layout) -> None:
    first = installed(places)
    assert first is not None and len(first) == 1 and len(first[0]) >= 32
    assert installed(places) == first
    for path in (places.srs_secrets, places.control + "/srs_secrets"):
        status = os.stat(path)
        assert (status.st_uid, status.st_gid) == (0, 0)
        assert stat.S_IMODE(status.st_mode) & 0o137 == 0
    assert stat.S_IMODE(os.stat(places.srs).st_mode) == 0o700


def test_given_secrets_win(places: Layout) -> None:
    assert installed(places, srs_secrets=f"{GIVEN},{GIVEN[::-1]}") == [GIVEN, GIVEN[::-1]]
    assert not os.path.exists(places.srs_secrets)


def test_off_means_no_secret_and_no_domain(places: Layout) -> None:
    assert installed(places) is not None
    assert installed(places, srs="off") is None
    assert not Path(places.control, "srs_domain").exists()


@pytest.mark.parametrize(
    ("variables", "domain"),
    [({}, "example.org"), ({"srs_domain": "Example.NET"}, "example.net")],
)
def test_domain(variables: dict[str, str], domain: str) -> None:
    files = render.control_tree(settings(**variables), ["example.org"])
    assert files["srs_domain"].content == domain.encode() + b"\n"
    assert "srs_secrets" not in files  # not for `postern render`


def test_domain_that_is_not_here_is_doubted() -> None:
    domains = ("example.org", "example.net")
    assert srs.doubt(settings(), domains) == ""
    assert srs.doubt(settings(srs_domain="mail.example.org"), domains) == ""
    assert "far.example" in srs.doubt(settings(srs_domain="far.example"), domains)
    assert srs.doubt(settings(srs_domain="far.example", srs="off"), domains) == ""


@pytest.mark.parametrize(
    "secret", ["short", "x" * 15, "with a blank in it", "#" + "x" * 20, "ü" * 20]
)
def test_weak_or_odd_secret_is_refused(secret: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(srs_secrets=secret)
    assert secret not in str(refused.value)


def test_rotate_keeps_what_is_under_way(places: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    data.prepare_volume(places)
    seen = installed(places)
    assert seen is not None
    for _ in range(4):
        assert srs.main(["srs", "rotate"], ENV, places) == 0
        now = Path(places.control, "srs_secrets").read_text().split()
        assert now[1:] == seen[: srs.KEPT - 1] and now[0] not in seen
        seen = now
    assert len(seen) == srs.KEPT
    assert seen[0] not in capsys.readouterr().out
    assert installed(places) == seen


@pytest.mark.parametrize(
    ("argv", "env", "code"),
    [
        (["srs"], {}, 100),
        (["srs", "rotate", "now"], {}, 100),
        (["srs", "rotate"], {"POSTERN_SRS": "off"}, 1),
        (["srs", "rotate"], {"POSTERN_SRS_SECRETS": GIVEN}, 1),
    ],
)
def test_nothing_to_rotate(places: Layout, argv: list[str], env: dict[str, str], code: int) -> None:
    assert srs.main(argv, ENV | env, places) == code
    assert not os.path.exists(places.srs_secrets)


def test_mounted_secrets_are_the_administrators(places: Layout) -> None:
    path = Path(places.control, "srs_secrets")
    path.write_text("theirs\n")
    assert installed(places) == ["theirs"]
    assert srs.main(["srs", "rotate"], ENV, places) == 1
    assert path.read_text() == "theirs\n"
