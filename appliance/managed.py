"""Files that we generate in a directory where an administrator keeps files as well.

A manifest notes what we wrote, so that a file that was mounted there or changed by
hand is never overwritten and never removed: it wins over the generated one.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from appliance import durable
from appliance.errors import ApplianceError

MANIFEST = ".postern"


class ManagedError(ApplianceError):
    """The directory does not take what has to be in it."""


class Outcome(NamedTuple):
    """What install did: names of files written, removed, and left to the administrator."""

    written: list[str]
    removed: list[str]
    kept: list[str]


def install(
    directory: str,
    files: Mapping[str, bytes],
    owned: Iterable[str] | None = None,
    groups: Mapping[str, int] | None = None,
) -> Outcome:
    """Make directory hold files, but for those that are the administrator's.

    A crash at any point leaves each file old or new, and known to be ours.

    Args:
        directory: where; it exists.
        files: name -> content of everything that should be there.
        owned: names that this call decides about; one that is ours and not in files
            is removed. None stands for every name.
        groups: name -> group of the files that only root and that group may read.

    Raises:
        ManagedError: the directory cannot be written and lacks some of the files.
        OSError: anything else that failed.
    """
    manifest = _read_manifest(directory)
    scope = set(manifest) | set(files) if owned is None else set(owned) | set(files)
    present = {name: _read(directory, name) for name in sorted(scope)}
    ours = {name for name in scope if _digest(present[name]) in manifest.get(name, set())}
    kept = [n for n in files if present[n] is not None and n not in ours and present[n] != files[n]]
    wanted = {name: content for name, content in sorted(files.items()) if name not in kept}
    written = [name for name, content in wanted.items() if present[name] != content]
    removed = sorted(ours - set(files))

    after = {name: digests for name, digests in manifest.items() if name not in scope}
    # A file that says what ours would say, and was not written by us, is not ours.
    claimed = ours | set(written)
    after |= {name: {_digest(content)} for name, content in wanted.items() if name in claimed}
    if not written and not removed and after == manifest:
        return Outcome([], [], sorted(kept))
    try:
        # Both the old and the new digests first: see the crash guarantee above.
        _write_manifest(directory, _union(manifest, after))
        for name in written:
            durable.replace(
                os.path.join(directory, name), files[name], group=(groups or {}).get(name)
            )
        for name in removed:
            os.unlink(os.path.join(directory, name))
        _write_manifest(directory, after)
    except OSError as error:
        if missing := [name for name in written if present[name] is None]:
            raise ManagedError(
                f"{directory}: not writable ({error.strerror}), and it lacks: {' '.join(missing)}"
            ) from error
        if written or removed:
            raise
    return Outcome(written, removed, sorted(kept))


def _read(directory: str, name: str) -> bytes | None:
    try:
        with open(os.path.join(directory, name), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _digest(content: bytes | None) -> str:
    return "" if content is None else hashlib.sha256(content).hexdigest()


def _read_manifest(directory: str) -> dict[str, set[str]]:
    manifest: dict[str, set[str]] = {}
    for line in (_read(directory, MANIFEST) or b"").decode("utf-8", "replace").splitlines():
        digest, _, name = line.partition(" ")
        if digest and name and "/" not in name:
            manifest.setdefault(name, set()).add(digest)
    return manifest


def _write_manifest(directory: str, manifest: Mapping[str, set[str]]) -> None:
    lines = [f"{digest} {name}\n" for name in sorted(manifest) for digest in sorted(manifest[name])]
    durable.replace(os.path.join(directory, MANIFEST), "".join(lines).encode())


def _union(one: Mapping[str, set[str]], other: Mapping[str, set[str]]) -> dict[str, set[str]]:
    return {
        name: one.get(name, set()) | other.get(name, set()) for name in one.keys() | other.keys()
    }
