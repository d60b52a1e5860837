"""Keep memory shared after fork: objects that nobody counts references to.

A forked child shares its parent's memory until it writes, and CPython writes to every
object that it merely looks at, in its reference count: a connection would copy hundreds
of pages to say EHLO. Since Python 3.12 objects can be immortal (PEP 683, made for this
very use): their count is a fixed number that is neither raised nor lowered. There is no
function for it, so the number is written where the count is.
"""

import gc
import os
import sys
from types import CodeType

# _Py_IMMORTAL_REFCNT of Include/object.h, in the low half of a 64-bit ob_refcnt.
IMMORTAL = (0xFFFFFFFF).to_bytes(4, sys.byteorder)
VERSIONS = ((3, 12), (3, 13))  # where the count is laid out like that

_CODE_PARTS = (
    *("co_consts", "co_names", "co_varnames", "co_freevars", "co_cellvars"),
    *("co_name", "co_qualname", "co_filename", "co_linetable", "co_exceptiontable"),
)

_SHARED_MODES = ("r-xp", "r--p")


def supported() -> bool:
    """Say whether this interpreter is one whose layout is known."""
    return (
        sys.implementation.name == "cpython"
        and sys.version_info[:2] in VERSIONS
        and sys.maxsize > 1 << 32
        and sys.byteorder == "little"
        and "t" not in sys.abiflags
        and not hasattr(sys, "gettotalrefcount")
    )


def is_immortal(item: object) -> bool:
    """Say whether an object's references are not counted; see `supported`."""
    return bool(sys.getrefcount(item) & 0x80000000)


def _parts(items: list[object]) -> list[object]:
    """Return what items consist of: more than the collector sees.

    It does not see what cannot be part of a cycle: what is in a code object (constants are
    what a function touches most) and the names that are keys of a dictionary.
    """
    parts: list[object] = gc.get_referents(*items)
    for item in items:
        if isinstance(item, CodeType):
            parts += (getattr(item, part) for part in _CODE_PARTS)
        elif isinstance(item, dict):
            parts += item
    return parts


def open_memory() -> int:
    """Open this process's memory for `freeze`; -1 where that is not possible or of no use.

    To be called before the process gives up root: the kernel asks only when it is opened.
    """
    if not supported():
        return -1
    try:
        return os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return -1


def freeze(memory: int) -> int:
    """Make all that exists now immortal and out of the collector's sight.

    For a process that from now on only forks: what is immortal is never freed.

    Args:
        memory: what `open_memory` returned; it is closed here.

    Returns:
        How many objects were made immortal; 0 where that is not possible, and then the
        children copy more pages.
    """
    made = 0
    if memory >= 0:
        made = _mark(memory)
        _inherit_files(memory)
        os.close(memory)
    # No collection before: it would leave holes that the children fill.
    gc.freeze()
    return made


def _mark(memory: int) -> int:
    """Make everything that can be found immortal; return how much that was.

    What has been found is told by its mark alone: a table of it all would be memory that is
    free again afterwards, but that every child inherits all the same.
    """
    made = 0
    items: list[object] = gc.get_objects()
    try:
        while items:
            fresh = []
            for item in items:
                if not is_immortal(item):
                    os.pwrite(memory, IMMORTAL, id(item))
                    fresh.append(item)
            made += len(fresh)
            items = _parts(fresh)
    except OSError:
        return 0
    return made


def _inherit_files(memory: int) -> None:
    """Have children start with the pages of programs and libraries that are in use here.

    A fork leaves it to the child to find each page of a mapped file again, at a fault each,
    unless the mapping has a page of the process's own: then the whole table is copied, which
    costs a fraction. One byte of each mapping is overwritten with itself.
    """
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            lines = maps.readlines()
    except OSError:
        return
    for line in lines:
        area, mode, *_, path = line.rstrip("\n").split(" ", 5)
        if mode in _SHARED_MODES and "/" in path:
            start = int(area.partition("-")[0], 16)
            try:
                os.pwrite(memory, os.pread(memory, 1, start), start)
            except OSError:
                pass  # this kernel lets nobody write there: it will be faults, then
