"""The volume: every owner and mode, made without the rights that root lacks here."""

import os
import shutil

import pytest

from appliance import data
from appliance.data import DataError, Directory, ensure
from appliance.layout import ALIAS, CHECKPW, QMAILQ, QMAILR, Layout, Owner

ALICE = Owner(20000, 20000)


def seen(path: str) -> tuple[int, int, int]:
    found = os.lstat(path)
    return found.st_mode & 0o7777, found.st_uid, found.st_gid


def test_owners_and_modes(places: Layout) -> None:
    assert seen(places.accounts) == (0o750, 0, CHECKPW.gid)
    assert seen(places.tls) == (0o700, 0, 0)
    assert seen(places.users) == (0o755, 0, 0)
    assert seen(places.alias) == (0o755, 0, 0)
    assert seen(places.alias + "/Maildir/new") == (0o700, *ALIAS)
    assert seen(places.homes) == (0o711, 0, 0)
    assert seen(places.spool) == (0o1733, 0, 0)
    assert seen(places.cache) == (0o755, 0, 0)
    assert seen(places.sts_policies) == (0o700, *QMAILR)
    assert seen(places.runtime) == (0o755, 0, 0)
    assert seen(places.queue_runtime) == (0o755, *QMAILQ)


def test_again_changes_nothing(places: Layout) -> None:
    before = {path: seen(path) for path, _, _ in os.walk(places.root)}
    data.prepare_volume(places)
    data.prepare_runtime(places)
    assert before == {path: seen(path) for path, _, _ in os.walk(places.root)}


@pytest.mark.parametrize("owner", [(0, 0), (20000, 20000), (7790, 2108)])
@pytest.mark.parametrize("mode", [0o700, 0o777, 0o755])
def test_wrong_owner_and_mode_are_put_right(
    places: Layout, owner: tuple[int, int], mode: int
) -> None:
    os.chmod(places.accounts, mode)
    os.chown(places.accounts, *owner)
    data.prepare_volume(places)
    assert seen(places.accounts) == (0o750, 0, CHECKPW.gid)


def test_mode_is_only_changed_while_root_owns_it(
    places: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without CAP_FOWNER a chmod of somebody else's directory fails."""
    chmod = os.chmod

    def only_own(path: str, mode: int) -> None:
        assert os.lstat(path).st_uid == 0
        chmod(path, mode)

    monkeypatch.setattr(os, "chmod", only_own)
    path = places.data + "/new"
    ensure(Directory(path, 0o750, ALICE))
    os.chmod = chmod  # type: ignore[assignment]
    os.chown(path, 0, 0)
    chmod(path, 0o777)
    os.chown(path, *ALICE)
    monkeypatch.setattr(os, "chmod", only_own)
    ensure(Directory(path, 0o750, ALICE))
    assert seen(path) == (0o750, *ALICE)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_directory_is_refused(places: Layout, kind: str) -> None:
    os.rmdir(places.tls)
    if kind == "file":
        open(places.tls, "w").close()
    else:
        os.symlink(places.users, places.tls)
    with pytest.raises(DataError, match="tls: not a directory"):
        data.prepare_volume(places)


def test_home_of_an_account(places: Layout) -> None:
    data.make_home(places, "alice@example.org", ALICE)
    home = places.home("alice@example.org")
    assert home == places.homes + "/example.org/alice"
    assert seen(os.path.dirname(home)) == (0o711, 0, 0)
    for part in ("", "/Maildir", "/Maildir/tmp", "/Maildir/new", "/Maildir/cur"):
        assert seen(home + part) == (0o700, *ALICE)


def test_interrupted_home_is_finished(places: Layout) -> None:
    home = places.home("alice@example.org")
    os.makedirs(home + "/Maildir/tmp", 0o700)
    os.chown(home + "/Maildir/tmp", *ALICE)
    data.make_home(places, "alice@example.org", ALICE)
    assert seen(home) == seen(home + "/Maildir/cur") == (0o700, *ALICE)


def test_home_of_somebody_else_is_not_taken(places: Layout) -> None:
    data.make_home(places, "alice@example.org", ALICE)
    with pytest.raises(DataError, match="belongs to uid 20000, not 20001"):
        data.make_home(places, "alice@example.org", Owner(20001, 20001))


def test_volume_that_cannot_be_written_is_named(tmp_path: str) -> None:
    places = Layout(str(tmp_path))
    with pytest.raises(DataError, match="data/accounts: No such file"):
        data.prepare_volume(places)
    shutil.rmtree(tmp_path)
