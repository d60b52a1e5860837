"""What an engine reads from the environment."""

from pathlib import Path

import pytest

from acceptutils.tls.settings import (
    Keypair,
    SettingsError,
    best_match,
    files,
    fingerprint,
    from_environment,
    without,
)

ENV = {
    "CERTFILE": "/c",
    "KEYFILE": "/k",
    "CERTFILE:One.example": "/c1",
    "KEYFILE:One.example": "/k1",
    "TLS_UID": "7801",
    "TLS_GID": "7802",
    "CADIR": "/ca",
    "PATH": "/bin",
}


def test_names_are_read_from_level_1_on_and_alone_from_level_2_on() -> None:
    default, named = Keypair("/c", "/k"), {"one.example": Keypair("/c1", "/k1")}
    for level, expected in {0: (default, {}), 1: (default, named), 2: (None, named)}.items():
        found = from_environment(ENV, level)
        assert (found.default, found.named) == expected, level
    assert (found.uid, found.gid, found.ca_directory) == (7801, 7802, "/ca")


def test_files_are_those_whose_change_matters() -> None:
    assert files(from_environment(ENV, 1)) == ["/c", "/c1", "/k", "/k1"]


@pytest.mark.parametrize(
    ("changed", "level", "text"),
    [
        ({"CERTFILE": None}, 0, "CERTFILE is not set"),
        ({"KEYFILE": None}, 0, "KEYFILE is not set"),
        ({"KEYFILE": None, "CERTFILE": None}, 0, "CERTFILE and KEYFILE are not set"),
        ({"KEYFILE:One.example": None}, 1, "KEYFILE:One.example is not set"),
        ({"TLS_UID": "ucspitls"}, 0, "TLS_UID is not a number"),
        ({"KEYFILE:One.example": None, "CERTFILE:One.example": None}, 2, "nor any"),
    ],
)
def test_what_is_missing_is_named(changed: dict[str, str | None], level: int, text: str) -> None:
    env = {name: value for name, value in (ENV | changed).items() if value is not None}
    with pytest.raises(SettingsError, match=text):
        from_environment(env, level)


def test_programs_do_not_see_where_the_key_is() -> None:
    assert without(ENV) == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("mail.example.org", "mail.example.org"),
        ("MAIL.example.ORG.", "mail.example.org"),
        ("smtp.example.org", "*.example.org"),
        ("a.b.example.org", None),
        ("example.org", None),
        ("example", None),
        ("", None),
        ("x.org", None),
    ],
)
def test_a_wildcard_is_one_label(name: str, match: str | None) -> None:
    pair = Keypair("", "")
    known = {"mail.example.org": pair, "*.example.org": pair, "*.org": pair}
    assert best_match(name, known) == match


def test_replacing_rewriting_and_removing_a_file_all_show(tmp_path: Path) -> None:
    path = tmp_path / "cert"
    seen = [fingerprint([str(path)])]
    path.write_bytes(b"one")
    seen.append(fingerprint([str(path)]))
    path.write_bytes(b"three")
    seen.append(fingerprint([str(path)]))
    (tmp_path / "new").write_bytes(b"three")
    (tmp_path / "new").rename(path)
    seen.append(fingerprint([str(path)]))
    assert len(set(seen)) == len(seen)
    assert fingerprint([str(path)]) == seen[-1]
