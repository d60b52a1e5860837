"""authup reads the control files of the protocol that it speaks, and of no other."""

from pathlib import Path

import pytest

from acceptutils.authup.program import DEFAULT_TIMEOUT, read_settings
from ucspi.control import ControlError

OTHER = {"smtp": "pop3", "pop3": "smtp"}


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "control"
    directory.mkdir()
    monkeypatch.chdir(tmp_path)
    return directory


@pytest.mark.parametrize("protocol", ["smtp", "pop3"])
def test_files_of_the_protocol(protocol: str, control: Path) -> None:
    for name, number in ((protocol, "7"), (OTHER[protocol], "8")):
        (control / f"{name}greeting").write_text(f"{name}.example \t\nmore\n")
        (control / f"{name}capabilities").write_text(f"# comment\nOF-{name}\n\nLAST \n")
        (control / f"timeout{name}d").write_text(f"{number}\n")
    settings, limits = read_settings(protocol, {})
    assert settings.greeting == f"{protocol}.example".encode()
    assert settings.capabilities == (f"OF-{protocol}".encode(), b"LAST")
    assert limits.single == 7


@pytest.mark.parametrize("protocol", ["smtp", "pop3"])
def test_what_holds_without_them(protocol: str, control: Path) -> None:
    (control / f"{protocol}capabilities").write_text("")
    with pytest.raises(ControlError, match=f"{protocol}greeting or control/me"):
        read_settings(protocol, {})
    (control / "me").write_text("me.example\n")
    settings, limits = read_settings(protocol, {})
    assert settings.greeting == b"me.example"
    assert settings.capabilities == ()
    assert limits.single == DEFAULT_TIMEOUT == 1200


@pytest.mark.parametrize("protocol", ["smtp", "pop3"])
def test_capabilities_must_be_given(protocol: str, control: Path) -> None:
    (control / "me").write_text("me.example\n")
    (control / f"{OTHER[protocol]}capabilities").write_text("X\n")
    with pytest.raises(ControlError, match=f"control/{protocol}capabilities does not exist"):
        read_settings(protocol, {})
