"""Become another user, for good."""

import os
from collections.abc import Callable

# Called, once each, by the first process that became somebody else (see authup's broker).
afterwards: list[Callable[[], None]] = []


class IdentityError(Exception):
    """The process is not, and must not go on as, who it was to become."""


def become(uid: int, gid: int) -> None:
    """Give up every identity but uid and gid; the next line runs as them.

    A process that was root is from now on not dumpable: the kernel clears that flag when
    the effective ids change (but with fs.suid_dumpable=1), until the next exec. Another
    process of the same uid can neither trace it nor read its memory or its descriptors
    under /proc, and no prctl, with its costly import, is needed for that.

    Raises:
        IdentityError: some identity is left over, or uid is root's. The process may
            already have changed in part: it can only end.
    """
    if uid <= 0 or gid <= 0:
        raise IdentityError(f"refusing to become uid {uid}, gid {gid}")
    try:
        os.setgroups([gid])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise IdentityError(f"unable to become uid {uid}, gid {gid}: {error.strerror}") from error
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3 or os.getgroups() != [gid]:
        raise IdentityError(f"did not become uid {uid}, gid {gid}")
    while afterwards:
        afterwards.pop()()


def number(text: str) -> int:
    """Return the user or group id that an option or a variable names.

    Raises:
        ValueError: not a number, root's, or above what an id can be.
    """
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**32 - 1):
        raise ValueError(f"not the number of an unprivileged user or group: {text[:20]!r}")
    return int(text)
