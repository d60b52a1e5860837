"""Tell the delivery program an account's quota, in the way of Maildir++.

``Maildir/maildirsize``: the first line is the quota (``1000S``: bytes), each other one
bytes and messages, whose sums are what the Maildir holds (Courier's README.maildirquota).
Without the file there is no quota. Everything here runs as the account's own user.
"""

import os

TRASH = ".Trash"  # does not count: one must be able to delete when all is full


def write(home: str, quota: int) -> bool:
    """Make quota (bytes) that of the Maildir in home; 0 for none.

    Raises:
        OSError: it cannot be written.
    """
    maildir = home + "/Maildir"
    path = maildir + "/maildirsize"
    if not quota:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        return True
    size, count = usage(maildir)
    temporary = f"{maildir}/tmp/maildirsize.{os.getpid()}"
    try:
        os.unlink(temporary)
    except FileNotFoundError:
        pass
    # A new one: what else had the name could be a FIFO, to wait at for ever.
    with open(temporary, "x") as file:
        file.write(f"{quota}S\n{size} {count}\n")
    os.rename(temporary, path)
    return True


def usage(maildir: str) -> tuple[int, int]:
    """Return bytes and number of the messages in a Maildir and its folders.

    Raises:
        OSError: a directory cannot be read.
    """
    size = count = 0
    for folder in ("", *(n for n in os.listdir(maildir) if n.startswith(".") and n != TRASH)):
        for part in ("new", "cur"):
            directory = os.path.join(maildir, folder, part)
            if not os.path.isdir(directory):
                continue
            for entry in os.scandir(directory):
                if entry.is_file(follow_symlinks=False):
                    size += _size(entry)
                    count += 1
    return size, count


def _size(entry: "os.DirEntry[str]") -> int:
    """Return a message's size; its name may say it (``,S=1234``), which saves a stat."""
    _, marked, rest = entry.name.partition(",S=")
    digits = rest.partition(",")[0].partition(":")[0]
    if marked and digits.isascii() and digits.isdigit():
        return int(digits)
    return entry.stat(follow_symlinks=False).st_size
