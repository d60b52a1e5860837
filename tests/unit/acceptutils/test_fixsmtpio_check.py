"""fixsmtpio-rules: where a mistake is, and what rules do to a dialogue."""

import io
import sys
from pathlib import Path

import pytest

from acceptutils.fixsmtpio import check, replay
from acceptutils.fixsmtpio.rules import parse

SHIPPED = Path(__file__).parents[3] / "templates" / "control" / "fixsmtpio.j2"


def run(*args: str) -> int:
    return check.main(["fixsmtpio-rules", *args], {})


def test_good_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules").write_text("# none\n:noop::*::250 fine\n")
    assert run("check", str(tmp_path / "rules")) == 0
    assert capsys.readouterr().out == f"{tmp_path}/rules: 1 rules\n"


def test_mistake_is_shown_with_line_and_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rules").write_text("# none\n:noop::*:999:\n")
    assert run("check", str(tmp_path / "rules")) == 1
    assert capsys.readouterr().out.startswith(f"{tmp_path}/rules:2:10: exitcode is not")
    assert run("try", str(tmp_path / "rules")) == 1


@pytest.mark.parametrize(
    ("rule", "advice"),
    [
        (b":noop::*::fine", "without a reply code"),
        (b":mail from::*::", "never happens"),
        (b":timeout:NOOP :*::", "without a request"),
        (b":data::5*::354 go", "ends the session"),
    ],
)
def test_what_is_hardly_meant_is_warned_of(rule: bytes, advice: str) -> None:
    [(line, text)] = check.advice(parse(rule))
    assert line == 1
    assert advice in text


def test_shipped_rules_need_no_warning() -> None:
    assert not list(check.advice(parse(SHIPPED.read_bytes())))


def test_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", str(tmp_path / "none")) == 111
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("args", [(), ("check",), ("try",), ("look", "x"), ("check", "x", "y")])
def test_misuse(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*args) == 100
    assert capsys.readouterr().err.startswith("usage: ")


def test_try_with_a_dialogue_from_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rules").write_text(":noop::2*:7:250 fine\n")
    stdin = io.TextIOWrapper(io.BytesIO(b"S: 220 hi\nC: NOOP\nS: 250 ok\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert run("try", str(tmp_path / "rules"), "-") == 0
    assert capsys.readouterr().out.splitlines() == [
        "== -",
        "3: 220 hi",
        "4: 220 hi",
        "1: NOOP",
        "2: NOOP",
        "3: 250 ok",
        "   rule in line 1 (noop, 2*): - 250 ok",
        "   rule in line 1 (noop, 2*): + 250 fine",
        "   rule in line 1 (noop, 2*): exit code 7",
        "4: 250 fine",
        "!: exit 7",
    ]


def test_try_without_a_dialogue_plays_all_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("try", str(SHIPPED)) == 0
    shown = capsys.readouterr().out
    assert shown.count("== ") == len(replay.EXAMPLES)
    for code in (0, 14, 16):
        assert f"!: exit {code}\n" in shown


def test_dialogue_of_no_known_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules").write_text("")
    for text in ("S: 220 hi\nhello\n", "S: 220 hi\nE: A=1\n"):
        (tmp_path / "dialogue").write_text(text)
        assert run("try", str(tmp_path / "rules"), str(tmp_path / "dialogue")) == 1
        assert "dialogue: line 2: " in capsys.readouterr().out


def test_reply_that_is_not_shown_is_said_to_be() -> None:
    transcript = replay.replay(parse(b":noop::*::"), "S: 220 hi\nC: NOOP\nS: 250-a\nS: 250 b\n")
    assert transcript[-1] == "   nothing is shown to the client"
    assert transcript.count(transcript[-1]) == 1
