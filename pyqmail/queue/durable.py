"""Waiting for the disk, for many files at once."""

import os
from collections.abc import Callable, Iterable

_SYNC_FILE_RANGE_WRITE = 2
_start: Callable[[int], None] | None = None


def start_writing(descriptors: Iterable[int]) -> None:
    """Have the kernel begin to write the files, without waiting.

    Then the fsyncs that follow find most of the work done, in one journal transaction
    instead of one each. It promises nothing and cannot fail.
    """
    global _start
    if _start is None:
        _start = _sync_file_range()
    for descriptor in descriptors:
        _start(descriptor)


def _sync_file_range() -> Callable[[int], None]:
    try:
        import ctypes  # not for every process that imports this module

        function = ctypes.CDLL(None).sync_file_range
        function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    except (ImportError, OSError, AttributeError):
        return lambda descriptor: None
    return lambda descriptor: function(descriptor, 0, 0, _SYNC_FILE_RANGE_WRITE)


def sync_directory(path: str) -> None:
    """Wait until the names in a directory are on disk.

    Raises:
        OSError: the directory cannot be opened or synced.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
