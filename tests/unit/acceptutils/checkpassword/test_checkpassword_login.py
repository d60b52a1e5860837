"""What was typed, its parts, and templates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils.checkpassword.login import Login, as_text, check_template, fill


@pytest.mark.parametrize(
    ("login", "parts"),
    [
        (b"alice@example.org", (b"alice", b"example.org")),
        (b"alice", (b"alice", b"")),
        (b"a@b@c", (b"a@b", b"c")),
        (b"@example.org", (b"", b"example.org")),
        (b"alice@", (b"alice", b"")),
    ],
)
def test_parts(login: bytes, parts: tuple[bytes, bytes]) -> None:
    assert (Login(login).local, Login(login).domain) == parts


def test_fill() -> None:
    login = Login(b"alice@example.org")
    template = "{local} at {domain} is {login}; {other }"
    assert as_text(template, login) == "alice at example.org is alice@example.org; {other }"


@given(st.binary(max_size=40))
def test_what_was_typed_is_no_template(typed: bytes) -> None:
    filled = fill("<{login}|{local}>", lambda place: Login(typed).part(place).decode("latin-1"))
    login = Login(typed)
    assert filled == f"<{login.login.decode('latin-1')}|{login.local.decode('latin-1')}>"


def test_placeholder_that_was_typed_stays() -> None:
    assert as_text("{login}", Login(b"{local}@x")) == "{local}@x"


def test_what_is_no_text_has_none() -> None:
    assert as_text("{login}", Login(b"\xff")) is None


@pytest.mark.parametrize(
    ("template", "complaint"),
    [("{user}", "user"), ("alice", "everybody"), ("{domain}", "everybody"), ("{}{login}", "none")],
)
def test_template_that_makes_no_sense(template: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_template(template)
