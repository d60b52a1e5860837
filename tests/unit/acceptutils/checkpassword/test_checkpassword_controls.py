"""Control files of several settings: what is taken, and that mistakes name no value."""

from pathlib import Path

import pytest

from acceptutils.checkpassword import controls
from acceptutils.checkpassword.controls import Controls
from ucspi.control import ControlError

KNOWN = frozenset({"uri", "filter", "timeout"})


def parse(content: bytes) -> dict[str, str]:
    return controls.parse("some", content, KNOWN)


def test_names_values_comments_and_continuations() -> None:
    content = b"# uri = not this\n\nuri=ldap://a  \n  filter = continues\n\tb\n"
    content += b"filter = (a=b)\ntimeout =\n"
    assert parse(content) == {
        "uri": "ldap://a filter = continues b",
        "filter": "(a=b)",
        "timeout": "",
    }


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"uri = a\nsecret = swordfish", "line 2: none of filter timeout uri"),
        (b"swordfish", "line 1"),
        (b"uri = a\n\nuri = swordfish", "line 3: uri is there twice"),
        (b" swordfish", "line 1: continues nothing"),
        (b"uri = \xff", "line 1: not UTF-8"),
    ],
)
def test_mistakes(content: bytes, complaint: str) -> None:
    with pytest.raises(ControlError) as raised:
        parse(content)
    assert complaint in str(raised.value)
    assert "swordfish" not in str(raised.value)


def test_values() -> None:
    found = Controls("some", {"uri": "a", "timeout": "61", "filter": ""})
    assert (found.required("uri"), found.text("x", "y")) == ("a", "y")
    assert found.choice("uri", ("a", "b"), "b") == "a"
    assert found.choice("x", ("a", "b"), "b") == "b"
    for failing in (
        lambda: found.required("x"),
        lambda: found.choice("uri", ("b",), "b"),
        lambda: found.read("timeout", controls.seconds, "10"),
    ):
        with pytest.raises(ControlError, match=r"^control/some: "):
            failing()


@pytest.mark.parametrize("text", ["0", "61", "-1", "", "1.5", "10s", "٣"])
def test_time_limits_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="seconds"):
        controls.seconds(text)


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "control").mkdir()
    with pytest.raises(ControlError, match="control/some does not exist"):
        controls.read("some", KNOWN)
    (tmp_path / "control/some").write_text("uri = a\n")
    assert set(controls.read("some", KNOWN)) == {"uri"}
    assert controls.read_secret("password") is None
    (tmp_path / "control/password").write_bytes(b"sword fish\xff\nmore\n")
    assert controls.read_secret("password") == b"sword fish\xff"
    (tmp_path / "control/password").write_bytes(b"\n")
    with pytest.raises(ControlError, match="empty"):
        controls.read_secret("password")
