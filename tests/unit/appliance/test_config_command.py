"""``postern config`` and ``postern render``, as a person runs them."""

from pathlib import Path

import pytest

from appliance import config, postern, settings_sources
from appliance.settings import Settings, variable

ENV = {"POSTERN_HOSTNAME": "mail.example.org"}
DOCS = Path(__file__).parents[3] / "docs" / "settings.md"


@pytest.fixture(autouse=True)
def no_file_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_sources, "DEFAULT_CONFIG", str(tmp_path / "none.toml"))


def run(*words: str, **variables: str) -> int:
    return postern.main(["postern", *words], ENV | variables)


def content(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(directory)): (path.stat().st_mode, path.read_bytes())
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_documentation_has_the_present_settings() -> None:
    assert DOCS.read_text() == config.reference(), "postern config reference > docs/settings.md"


def test_reference_has_every_setting_described() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description
        assert f"| `{variable(name)}` |" in config.reference()


def test_show_tells_values_and_sources_and_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "show", POSTERN_SMTPROUTES=":relay user hunter2", POSTERN_TLS="no") == 0
    shown = {
        line.split(" = ")[0]: line.split(" = ")[1] for line in capsys.readouterr().out.splitlines()
    }
    assert set(shown) == set(Settings.model_fields)
    assert shown["hostname"].split() == ["mail.example.org", "#", "POSTERN_HOSTNAME"]
    assert shown["tls"].split() == ["off", "#", "POSTERN_TLS"]
    assert shown["grace"].split() == ["8", "#", "default"]
    assert shown["smtproutes"].split() == ["********", "#", "POSTERN_SMTPROUTES"]


def test_wrong_setting_is_exit_78_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("config", "show", POSTERN_GRACE="long") == 78
    told = capsys.readouterr().err
    assert told.startswith("postern: POSTERN_GRACE: got 'long'")
    assert told.count("\n") == 1


def test_render_twice_gives_the_same_bytes_and_modes(tmp_path: Path) -> None:
    assert run("render", str(tmp_path / "one")) == 0
    assert run("render", str(tmp_path / "two")) == 0
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_render_replaces_what_it_rendered_before(tmp_path: Path) -> None:
    assert run("render", str(tmp_path)) == 0
    assert (tmp_path / "service/pop3/run").exists()
    assert run("render", str(tmp_path), POSTERN_SERVICES="mx") == 0
    assert not (tmp_path / "service/pop3").exists()


def test_render_spares_what_it_did_not_make(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service/mine").write_text("x")
    assert run("render", str(tmp_path)) == 111
    assert (tmp_path / "service/mine").exists()
    assert "was not made by postern render" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["config"], ["config", "nonsense"], ["render"], ["rules", "check"]]
)
def test_wrong_usage_is_exit_100(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 100
    assert "usage:" in capsys.readouterr().err


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["config", "--help"], ["user", "add", "--help"]):
        assert run(*words) == 0
        assert "usage:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("version") == 0
    assert capsys.readouterr().out.startswith("postern ")
