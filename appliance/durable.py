"""Replace files so that a crash at any point leaves the old one or the new one."""

import os


def replace(path: str, content: bytes, mode: int = 0o644, group: int | None = None) -> None:
    """Put content at path: synced, and a reader sees the old file or the new one.

    Args:
        path: where.
        content: what.
        mode: its permissions; 0640 when there is a group.
        group: the group that alone may read it.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(fd, mode if group is None else 0o640)
        if group is not None:
            os.fchown(fd, -1, group)
        os.fsync(fd)
    os.rename(temporary, path)
    sync_directory(directory)


def sync_directory(directory: str) -> None:
    """Wait until the names in directory are on the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
