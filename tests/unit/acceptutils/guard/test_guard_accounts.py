"""However a client writes an account's name, its failures are counted together."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acceptutils.guard.accounts import Names
from acceptutils.guard.wire import Outcome


@pytest.mark.parametrize(
    ("listed", "account", "name"),
    [
        (b"example.org:example.org\n", b"Alice", b"alice@example.org"),
        (b"Example.org\n", b"alice@EXAMPLE.org", b"alice@example.org"),
        (b"# one\n\nexample.org:x\nexample.org:y\n", b"alice", b"alice@example.org"),
        (b"example.org\nexample.net\n", b"alice", b"alice"),
        (b"example.org\n", b"alice@example.net", b"alice@example.net"),
        (b"", b"alice", b"alice"),
    ],
)
def test_one_name(tmp_path: Path, listed: bytes, account: bytes, name: bytes) -> None:
    (tmp_path / "domains").write_bytes(listed)
    assert Names(str(tmp_path / "domains")).canonical(account) == name


def test_without_a_file_a_name_is_what_it_is(tmp_path: Path) -> None:
    assert Names().canonical(b"Alice") == b"alice"
    assert Names(str(tmp_path / "missing")).canonical(b"alice") == b"alice"


def test_new_domain_counts_at_once(tmp_path: Path) -> None:
    listed = tmp_path / "domains"
    listed.write_bytes(b"example.org\n")
    names = Names(str(listed))
    assert names.canonical(b"alice") == b"alice@example.org"
    listed.write_bytes(b"example.org\nexample.net\n")
    assert names.canonical(b"alice") == b"alice"
    listed.unlink()
    assert names.canonical(b"alice") == b"alice"


@pytest.mark.skipif(os.getuid() != 0, reason="answers root only")
def test_guesses_at_both_names_add_up(start_guard: Callable[..., Any], tmp_path: Path) -> None:
    listed = tmp_path / "domains"
    listed.write_bytes(b"example.org:example.org\n")
    for directory in tmp_path.parents[:2]:
        directory.chmod(0o755)
    tmp_path.chmod(0o755)
    guard = start_guard("-d", str(listed))
    names = (b"alice", b"alice@example.org", b"ALICE", b"Alice@Example.org")
    answers = [guard.attempt(Outcome.FAILED, account=name) for name in names]
    assert [a.milliseconds // 1000 for a in answers] == [0, 0, 1, 2]
