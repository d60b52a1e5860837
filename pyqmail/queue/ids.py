"""The users that the mailer works under, by number."""

from typing import NamedTuple


class Ids(NamedTuple):
    """Numbers of netqmail's users, and of the group qmail."""

    alias: int = 7790
    qmaild: int = 7791
    qmailq: int = 7794
    qmailr: int = 7795
    qmails: int = 7796
    group: int = 2107


def lookup() -> Ids:
    """Return the numbers from the password and group files; the image's for those not there.

    netqmail has them compiled in. A queue that came from another machine may have other
    numbers: then the names must exist here with those numbers.
    """
    import grp
    import pwd

    ids = Ids()
    for name in ("alias", "qmaild", "qmailq", "qmailr", "qmails"):
        try:
            ids = ids._replace(**{name: pwd.getpwnam(name).pw_uid})
        except KeyError:
            pass
    try:
        ids = ids._replace(group=grp.getgrnam("qmail").gr_gid)
    except KeyError:
        pass
    return ids
