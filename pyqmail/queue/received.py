"""The Received line that stands on top of every queued message."""

from pyqmail.queue.ids import Ids
from pyqmail.received import date822


def received_line(pid: int, uid: int, ids: Ids, seconds: float) -> bytes:
    """Return the line that qmail-queue puts first; by whom it was run, the kernel said."""
    if uid == ids.alias:
        by = b"by alias"
    elif uid == ids.qmaild:
        by = b"from network"
    elif uid == ids.qmails:
        by = b"for bounce"
    else:
        by = b"by uid %d" % uid
    return b"Received: (qmail %d invoked %s); %s\n" % (pid, by, date822(seconds))
