"""qmail-getpw: which user of the system an address belongs to (qmail-getpw(8)).

qmail-lspawn asks here for an address that users/cdb does not list. ``joe`` and
``joe-anything`` belong to the user joe, if joe is not root and owns his home; everything
else belongs to alias.
"""

import os
import pwd
import sys

from pyqmail.local import exitcodes
from pyqmail.local.dotfile import is_temporary
from pyqmail.users.lookup import Assignment

ALIAS = "alias"
BREAK = b"-"
NAME_LIMIT = 32  # bytes; no user name is longer (conf GETPW_USERLEN)


class GetpwError(Exception):
    """No answer now; ``status`` is the exit status that says why."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(status)


def find(local: bytes) -> Assignment:
    """Return the assignment of an address to a user of the system, or to alias.

    Raises:
        GetpwError: there is no alias user, or a home cannot be looked at for now.
    """
    end = len(local)
    while end >= 0:
        if end < NAME_LIMIT and (end == len(local) or local[end : end + 1] == BREAK):
            entry = _user(local[:end].lower())
            if entry is not None:
                dash = BREAK if end < len(local) else b""
                return _assignment(entry, dash, local[end + 1 :])
        end = local.rfind(BREAK, 0, end)
    try:
        alias = pwd.getpwnam(ALIAS)
    except KeyError:
        raise GetpwError(exitcodes.NO_ALIAS) from None
    return _assignment(alias, BREAK, local)


def _user(name: bytes) -> pwd.struct_passwd | None:
    """Return the user of that name if mail may go there."""
    if not name or b"\0" in name:
        return None
    try:
        entry = pwd.getpwnam(os.fsdecode(name))
        if entry.pw_uid != 0 and os.stat(entry.pw_dir).st_uid == entry.pw_uid:
            return entry
    except KeyError:
        pass
    except OSError as error:
        if is_temporary(error):
            raise GetpwError(exitcodes.NFS) from error
    return None


def _assignment(entry: pwd.struct_passwd, dash: bytes, ext: bytes) -> Assignment:
    user, home = os.fsencode(entry.pw_name), os.fsencode(entry.pw_dir)
    return Assignment(user, entry.pw_uid, entry.pw_gid, home, dash, ext)


def main(argv: list[str], env: dict[str, str]) -> int:
    """``qmail-getpw LOCAL``: print USER, UID, GID, HOMEDIR, DASH, EXT, each with a NUL.

    Returns:
        0; 100 no address; else an exit status of qmail-lspawn's.
    """
    if len(argv) < 2:
        return 100
    try:
        found = find(os.fsencode(argv[1]))
    except GetpwError as error:
        return error.status
    fields = (found.user, b"%d" % found.uid, b"%d" % found.gid, *found[3:])
    sys.stdout.flush()
    os.write(1, b"".join(field + b"\0" for field in fields))
    return 0
