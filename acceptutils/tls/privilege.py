"""What a process that holds a key gives up, and how it keeps its memory to itself."""

import os

from acceptutils import identity
from acceptutils.identity import IdentityError


def become(uid: int, gid: int) -> None:
    """Become uid:gid for good when root; otherwise confirm being uid:gid already.

    Raises:
        IdentityError: the process is not uid:gid, and must not go on.
    """
    if os.geteuid() == 0:
        identity.become(uid, gid)
    elif os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3:
        raise IdentityError(f"unable to become uid {uid}, gid {gid}: not root")


def give_up_root(uid: int | None, gid: int | None) -> None:
    """Become uid:gid when root, and hide; neither the key's file nor root is in reach then.

    What is to be imported must have been: the library may be out of reach as well.

    Raises:
        IdentityError: this process is root and nobody is named, or the change failed.
    """
    if os.geteuid() == 0:
        if uid is None or gid is None:
            raise IdentityError("TLS_UID and TLS_GID are not both set")
        import resource  # noqa: F401 - the next user may not be able to read the library

        identity.become(uid, gid)
    hide_memory()


def hide_memory() -> None:
    """Deny other processes of this uid a look at this one's memory (ptrace, core, /proc).

    The kernel does so itself when root is given up, unless fs.suid_dumpable says otherwise;
    then, and where there was no root to give up, it is asked to. Best effort: where
    the C library cannot be reached the process runs on as it is.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.getuid() != 0 and os.stat("/proc/self/environ").st_uid == 0:
        return  # /proc shows a process that cannot be inspected as root's
    try:
        import ctypes

        set_dumpable = 4  # PR_SET_DUMPABLE, prctl(2)
        ctypes.CDLL(None).prctl(set_dumpable, 0, 0, 0, 0)
    except (ImportError, OSError, AttributeError):
        pass
