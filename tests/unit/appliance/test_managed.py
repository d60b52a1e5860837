"""Generated files beside an administrator's: ours are kept current, theirs are kept."""

import os
from pathlib import Path

import pytest

from appliance import durable
from appliance.managed import ManagedError, install


def test_files_are_written_once(tmp_path: Path) -> None:
    assert install(str(tmp_path), {"me": b"a\n", "locals": b"b\n"}).written == ["locals", "me"]
    assert install(str(tmp_path), {"me": b"a\n", "locals": b"b\n"}) == ([], [], [])
    assert (tmp_path / "me").read_bytes() == b"a\n"


def test_changed_setting_changes_our_file(tmp_path: Path) -> None:
    install(str(tmp_path), {"me": b"a\n"})
    assert install(str(tmp_path), {"me": b"b\n"}).written == ["me"]
    assert (tmp_path / "me").read_bytes() == b"b\n"


def test_mounted_file_wins(tmp_path: Path) -> None:
    (tmp_path / "me").write_bytes(b"theirs\n")
    assert install(str(tmp_path), {"me": b"ours\n"}).kept == ["me"]
    assert (tmp_path / "me").read_bytes() == b"theirs\n"


def test_mounted_file_that_says_the_same_as_ours_is_still_theirs(tmp_path: Path) -> None:
    (tmp_path / "me").write_bytes(b"same\n")
    install(str(tmp_path), {"me": b"same\n"})
    assert install(str(tmp_path), {"me": b"other\n"}).kept == ["me"]
    assert (tmp_path / "me").read_bytes() == b"same\n"


def test_file_changed_by_hand_wins_from_then_on(tmp_path: Path) -> None:
    install(str(tmp_path), {"me": b"ours\n"})
    (tmp_path / "me").write_bytes(b"theirs\n")
    for content in (b"ours\n", b"newer\n"):
        assert install(str(tmp_path), {"me": content}).kept == ["me"]
    assert (tmp_path / "me").read_bytes() == b"theirs\n"


def test_file_that_is_not_wanted_any_more_goes_if_it_is_ours(tmp_path: Path) -> None:
    install(str(tmp_path), {"me": b"a\n", "smtproutes": b"x\n", "locals": b"y\n"})
    (tmp_path / "locals").write_bytes(b"theirs\n")
    (tmp_path / "badmailfrom").write_bytes(b"theirs\n")
    assert install(str(tmp_path), {"me": b"a\n"}).removed == ["smtproutes"]
    assert sorted(os.listdir(tmp_path)) == [".postern", "badmailfrom", "locals", "me"]


def test_names_out_of_scope_are_left_alone(tmp_path: Path) -> None:
    install(str(tmp_path), {"me": b"a\n", "locals": b"b\n"})
    assert install(str(tmp_path), {"locals": b"c\n"}, owned=["locals", "rcpthosts"]) == (
        ["locals"],
        [],
        [],
    )
    assert install(str(tmp_path), {"me": b"a\n", "locals": b"c\n"}) == ([], [], [])


@pytest.mark.parametrize("step", range(6))
def test_crash_between_any_two_steps_leaves_files_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The next start, with other settings, must not take them for the administrator's."""
    install(str(tmp_path), {"me": b"1\n", "locals": b"1\n"})
    steps = iter(range(100))
    rename = os.rename

    def crash(source: str, target: str) -> None:
        if next(steps) == step:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", crash)
    try:
        install(str(tmp_path), {"me": b"2\n", "locals": b"2\n"})
    except KeyboardInterrupt:
        pass
    monkeypatch.setattr(os, "rename", rename)
    assert install(str(tmp_path), {"me": b"3\n", "locals": b"3\n"}).kept == []
    assert (tmp_path / "me").read_bytes() == (tmp_path / "locals").read_bytes() == b"3\n"


def test_read_only_directory_with_everything_in_it_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "me").write_bytes(b"theirs\n")
    _make_read_only(monkeypatch)
    assert install(str(tmp_path), {"me": b"ours\n"}).kept == ["me"]


def test_read_only_directory_that_lacks_files_is_an_error_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "me").write_bytes(b"theirs\n")
    _make_read_only(monkeypatch)
    with pytest.raises(ManagedError, match="it lacks: locals rcpthosts") as raised:
        install(str(tmp_path), {"me": b"a\n", "rcpthosts": b"b\n", "locals": b"c\n"})
    assert str(tmp_path) in str(raised.value)


def _make_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(durable, "replace", refuse)


def test_file_for_one_group_is_for_nobody_else(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: the group is another")
    install(str(tmp_path), {"smtproutes": b"secret\n"}, groups={"smtproutes": 2107})
    found = (tmp_path / "smtproutes").stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o640, 0, 2107)


def test_other_files_are_readable_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        install(str(tmp_path), {"me": b"a\n"})
    finally:
        os.umask(previous)
    assert (tmp_path / "me").stat().st_mode & 0o777 == 0o644
