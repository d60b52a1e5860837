"""Mail-Followup-To: where answers to a message in a list go (cr.yp.to/proto/replyto.html)."""

import os
from collections.abc import Iterable

from pyqmail.header.fields import Field, make
from pyqmail.quote import quote
from ucspi import control

NAME = b"Mail-Followup-To"


def mailing_lists(env: dict[str, str]) -> frozenset[bytes]:
    """Return the addresses in the file ``QMAILMFTFILE``, one in a line, in lower case.

    Raises:
        ControlError: it exists and cannot be read.
    """
    path = env.get("QMAILMFTFILE")
    try:
        with open(path or os.devnull, "rb") as file:
            return frozenset(control.parse_lines(file.read().lower()))
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise control.ControlError(f"unable to read {path}: {error.strerror}") from error


def added(
    fields: Iterable[Field], readers: Iterable[bytes], lists: frozenset[bytes]
) -> list[Field]:
    """Return the field that a message to one of the lists gets, unless it has one.

    Args:
        fields: of the message.
        readers: the whole addresses in To and Cc; all of them get the answers.
        lists: the addresses of mailing lists, in lower case.
    """
    once = dict.fromkeys(readers)
    has_one = any(field.name == NAME.lower() for field in fields)
    if has_one or not any(reader.lower() in lists for reader in once):
        return []
    return [make(NAME, b",\n  ".join(map(quote, once)))]
