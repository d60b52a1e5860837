"""Log lines as JSON objects."""

import json

from appliance import jsonlog


def read(line: bytes) -> dict[str, str]:
    found: dict[str, str] = json.loads(jsonlog.record("mx", line, 1_700_000_000.0625))
    return found


def test_line_with_address_and_session() -> None:
    assert read(b"authup 7 protocol smtp ip=2001:db8::1 session=k3f9") == {
        "time": "2023-11-14T22:13:20.062Z",
        "service": "mx",
        "message": "authup 7 protocol smtp",
        "ip": "2001:db8::1",
        "session": "k3f9",
    }


def test_line_without_them() -> None:
    assert read(b"status: local 0/10 remote 0/20")["message"] == "status: local 0/10 remote 0/20"
    assert "ip" not in read(b"status")


def test_what_only_looks_like_them_stays_in_the_message() -> None:
    assert read(b"user said ip=1.2.3.4 and left")["message"] == "user said ip=1.2.3.4 and left"


def test_bytes_that_are_no_text_cannot_break_the_object() -> None:
    assert jsonlog.record("mx", b'\xff"\x1b\n}', 0).count(b"\n") == 1
    assert read(b'"}')["message"] == '"}'


def test_lines_split_across_reads_are_joined() -> None:
    assert jsonlog.split(b"one\ntw") == ([b"one"], b"tw")
    assert jsonlog.split(b"two\n") == ([b"two"], b"")


def test_endless_line_is_cut() -> None:
    lines, rest = jsonlog.split(b"x" * 20000)
    assert [len(line) for line in lines] == [8192, 8192]
    assert len(rest) == 20000 - 2 * 8192
