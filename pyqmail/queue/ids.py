"""The users that the mailer works under, by number, and how a program becomes one of them."""

import os
from typing import NamedTuple


class Ids(NamedTuple):
    """Numbers of netqmail's users and of its two groups; the defaults are the image's."""

    alias: int = 7790
    qmaild: int = 7791
    qmaill: int = 7792
    qmailp: int = 7793
    qmailq: int = 7794
    qmailr: int = 7795
    qmails: int = 7796
    group: int = 2107  # of the name qmail
    nofiles: int = 2108

    @property
    def users(self) -> tuple[int, ...]:
        """The users without the groups."""
        return self[:7]


USERS = ("alias", "qmaild", "qmaill", "qmailp", "qmailq", "qmailr", "qmails")
GROUPS = {"group": "qmail", "nofiles": "nofiles"}  # field: name


def lookup() -> Ids:
    """Return the numbers from the password and group files; the image's for those not there.

    netqmail has them compiled in. A queue that came from another machine may have other
    numbers: then the names must exist here with those numbers.
    """
    import grp
    import pwd

    found: dict[str, int] = {}
    for name in USERS:
        try:
            found[name] = pwd.getpwnam(name).pw_uid
        except KeyError:
            pass
    for field, name in GROUPS.items():
        try:
            found[field] = grp.getgrnam(name).gr_gid
        except KeyError:
            pass
    return Ids(**found)


def become(uid: int, gid: int) -> None:
    """Run as uid and gid, and in no other group, from here on; uid 0 stays root.

    Without root nothing can be changed and nothing is: the program runs as its caller.

    Raises:
        OSError: root could not.
    """
    if os.geteuid():
        return
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid):
        raise PermissionError("the change of user did not work")
