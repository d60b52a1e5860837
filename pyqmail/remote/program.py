"""qmail-remote: send one message to one host over SMTP.

    qmail-remote host sender recip [ recip ... ]

The message is on descriptor 0; the reports go to descriptor 1.
See qmail-remote(8).
"""

import os

from pyqmail import maildir
from pyqmail.remote.sender import Sender

REPORTS = 1  # the descriptor


def main(argv: list[str], env: dict[str, str]) -> int:
    """Send the message; print the reports. Changes to the qmail home.

    Returns:
        0, always: what became of the message is in the reports.
    """
    sender = Sender(env)
    reports = sender.deliver([os.fsencode(word) for word in argv[1:]])
    sender.leave()
    try:
        maildir.write_all(REPORTS, b"".join(reports))
    except OSError:
        pass  # qmail-rspawn has gone: the message will be tried again
    return 0
