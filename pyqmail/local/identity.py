"""Stop being root: the one place where a delivery takes on its user's ids."""

import os


class IdentityError(Exception):
    """The process could not become that user and must not go on."""


class RootError(IdentityError):
    """The user is root: mail is never delivered with root's rights."""


def become(uid: int, gid: int) -> None:
    """Become the user, for good: no other group, no way back. What follows runs as uid.

    Args:
        uid: of the user; not 0.
        gid: of the user's group, the only one from now on.

    Raises:
        RootError: uid is 0. Nothing has changed.
        IdentityError: the ids are not what was asked for.
    """
    if uid == 0:
        raise RootError
    try:
        was_root = os.geteuid() == 0
        if was_root:
            os.setgroups([gid])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except (OSError, OverflowError) as error:
        raise IdentityError(str(error)) from error
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3:
        raise IdentityError("the kernel says otherwise")
    if was_root and not set(os.getgroups()) <= {gid}:
        raise IdentityError("groups are left over")
