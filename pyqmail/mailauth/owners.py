"""Which logins a uid has, from users/assign (qmail-users(9))."""

import os
import threading


class Logins:
    """The logins of each uid, read again when the file has changed."""

    def __init__(self, path: str) -> None:
        """Read from the file at path."""
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._logins: dict[int, set[bytes]] = {}

    def of(self, uid: int) -> set[bytes]:
        """Return the logins of uid, none for a uid that is no account's.

        Raises:
            OSError: the file cannot be read.
        """
        with self._lock:
            found = os.stat(self._path)
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                with open(self._path, "rb") as file:
                    self._logins = parse(file.read())
                self._seen = seen
            return self._logins.get(uid, set())


def parse(content: bytes) -> dict[int, set[bytes]]:
    """Return uid -> logins of the addresses that are assigned as a whole (``=`` lines)."""
    found: dict[int, set[bytes]] = {}
    for line in content.split(b"\n"):
        fields = line.split(b":")
        if line.startswith(b"=") and len(fields) >= 5 and fields[2].isdigit():
            found.setdefault(int(fields[2]), set()).add(fields[1])
    return found
