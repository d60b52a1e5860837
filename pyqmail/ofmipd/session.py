"""What ofmipd adds to the SMTP conversation: whole addresses, and whose they are."""

from collections.abc import Callable

from pyqmail.header.rewriting import Rewriter
from pyqmail.ofmipd.senders import CANNOT_READ, NOT_YOURS, Identity, Names, Ownership
from pyqmail.smtp import reply
from pyqmail.smtp.address import ADDRESS_LIMIT
from pyqmail.smtp.reply import Reply
from pyqmail.smtp.session import Session
from ucspi import control

NAME = b"ofmipd.local"

# A client that has read AUTH in an EHLO reply may send it (RFC 4954, 5); what it says is
# about relays that trust each other.
PARAMETERS = frozenset({b"AUTH"})


class OfmipdSession(Session):
    """A conversation with an authenticated user.

    Args:
        size_limit: bytes that a message may have; 0 when there is no limit.
        rewriter: makes host names whole.
        names: says under which name and address a sender is to appear.
        ownership: says which addresses the user may send as.
        event: takes one line for the log.
    """

    HELP = b"qmail home page: http://pobox.com/~djb/qmail.html"

    def __init__(
        self,
        size_limit: int,
        rewriter: Rewriter,
        names: Names,
        ownership: Ownership,
        event: Callable[[str], None],
    ) -> None:
        super().__init__(NAME, size_limit, event, PARAMETERS)
        self.rewriter = rewriter
        self.names = names
        self.ownership = ownership
        self.identity: Identity | None = None

    def check_sender(self, address: bytes) -> bytes | Reply:
        """Return the sender with its host made whole, or as the name database has it."""
        address = self.rewriter.address(address)
        if len(address) >= ADDRESS_LIMIT:
            return reply.SYNTAX
        try:
            identity = self.names.identity(address) if address else None
            # The administrator says that whoever owns an address is to appear as another;
            # a user can say so only of addresses that are theirs, too.
            claimed = identity.address if identity and identity.own_rule else address
            if claimed and not self.ownership.holds(claimed):
                return NOT_YOURS
        except control.ControlError as error:
            self.event(str(error))
            return CANNOT_READ
        self.identity = identity
        return identity.address if identity else address

    def check_recipient(self, address: bytes) -> bytes | Reply:
        """Return the recipient with its host made whole."""
        address = self.rewriter.address(address)
        if not address or len(address) >= ADDRESS_LIMIT:
            return reply.SYNTAX
        return address
