"""What somebody at the terminal reads when a command could not do its work."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance import admin, dkim_admin, store
from appliance.errors import ApplianceError, complain
from appliance.layout import Layout
from appliance.store import Store

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/accounts/new")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ApplianceError("no such account"), "postern: no such account\n"),
        (ApplianceError("one\ntwo"), "postern: one\npostern: two\n"),
        (FULL, "postern: /data/accounts/new: No space left on device\n"),
        (OSError(errno.EPERM, "Operation not permitted"), "postern: system call: Operation not "),
        (OSError("broken"), "postern: broken\n"),
    ],
)
def test_it_says_what_is_in_the_way(
    error: Exception, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    complain(error)
    assert capsys.readouterr().err.startswith(told)


@pytest.mark.parametrize(
    ("main", "words", "told", "wrong"),
    [
        (admin.main, ["user"], "refuse its password", "postern user: the following"),
        (admin.main, ["user", "add"], "--no-password", "postern user add: the following"),
        (admin.main, ["alias", "ad", "x"], "list aliases", "invalid choice: 'ad'"),
        (dkim_admin.main, ["dkim", "use", "example.org"], "selector", "postern dkim use: the foll"),
    ],
)
def test_wrong_usage_is_answered_with_what_would_be_right(
    main: Callable[[list[str], dict[str, str]], int],
    words: list[str],
    told: str,
    wrong: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words, {}) == 100
    said = capsys.readouterr().err
    assert told in said
    assert wrong in said.splitlines()[-1]


def test_full_disk_is_named_with_the_file(
    places: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.save(places, Store(("example.org",)))
    before = Path(places.store).read_bytes()

    def fail(*_: object) -> None:
        raise FULL

    monkeypatch.setattr(store, "save", fail)
    assert admin.main(["domain", "add", "example.net"], {}, places) == 111
    assert capsys.readouterr().err == "postern: /data/accounts/new: No space left on device\n"
    assert Path(places.store).read_bytes() == before
