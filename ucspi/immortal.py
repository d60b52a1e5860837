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

# _Py_IMMORTAL_REFCNT of Include/object.h, in the low half of a 64-bit ob_refcnt.
IMMORTAL = (0xFFFFFFFF).to_bytes(4, sys.byteorder)
VERSIONS = ((3, 12), (3, 13))  # where the count is laid out like that


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


def reachable() -> dict[int, object]:
    """Return every object that the garbage collector can find, by address."""
    found: dict[int, object] = {}
    fresh: list[object] = gc.get_objects()
    while fresh:
        new = [item for item in fresh if id(item) not in found]
        found.update((id(item), item) for item in new)
        fresh = gc.get_referents(*new)
    return found


def open_memory() -> int:
    """Open this process's memory for `freeze`; -1 where that is not possible or of no use.

    To be called before the process gives up root: the kernel asks only when it is opened.
    """
    if not supported():
        return -1
    try:
        return os.open("/proc/self/mem", os.O_WRONLY | os.O_CLOEXEC)
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
        os.close(memory)
    # No collection before: it would leave holes that the children fill.
    gc.freeze()
    return made


def _mark(memory: int) -> int:
    found = reachable()
    write = os.pwrite
    try:
        for address in found:
            write(memory, IMMORTAL, address)
    except OSError:
        return 0
    return len(found)
