"""Under which sender a message is forwarded to whom.

The sender stays, but for recipients elsewhere where SRS is in use: those get the one that
qmail-lspawn has put into ``SRS_SENDER`` (see `returnpath`).
"""

import os
from typing import NamedTuple

from pyqmail.local import domains
from pyqmail.send.schedule import LOCAL
from ucspi import control


class Forward(NamedTuple):
    """One envelope."""

    sender: bytes
    recipients: list[bytes]


def envelopes(
    sender: bytes, original: bytes, recipients: list[bytes], env: dict[str, str]
) -> list[Forward]:
    """Return the envelopes with which to forward a message: one, or two.

    Args:
        sender: the sender to use.
        original: the one that the message came with. Where sender is another one, a
            mailing list's owner, it is ours already.
        recipients: to whom.
        env: ``SRS_SENDER``, and ``QMAIL_HOME`` for the control files.

    Raises:
        ControlError: who is here and who is not cannot be said now.
    """
    rewritten = os.fsencode(env.get("SRS_SENDER", ""))
    if not rewritten or sender != original:
        return [Forward(sender, recipients)]
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        control.enter_home(env)
        routing = domains.read()
    finally:
        os.fchdir(here)
        os.close(here)
    inside: list[bytes] = []
    outside: list[bytes] = []
    for recipient in recipients:
        local = routing.route(recipient).channel == LOCAL
        (inside if local else outside).append(recipient)
    both = (Forward(sender, inside), Forward(rewritten, outside))
    return [forward for forward in both if forward.recipients] or [both[0]]
