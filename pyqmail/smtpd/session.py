"""What qmail-smtpd adds to the SMTP conversation: who may send, and to whom."""

from collections.abc import Callable
from typing import NamedTuple

from pyqmail.smtp import reply
from pyqmail.smtp.address import literal
from pyqmail.smtp.reply import Reply
from pyqmail.smtp.reply import reply as make
from pyqmail.smtp.session import Session
from pyqmail.smtpd.policy import AddressList, RecipientHosts

BAD_SENDER = make(553, b"sorry, your envelope sender is in my badmailfrom list (#5.7.1)")
NO_GATEWAY = make(553, b"sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)")

# (sender, recipient) -> None, or the refusal.
RecipientCheck = Callable[[bytes, bytes], Reply | None]


class Policy(NamedTuple):
    """Everything that the control files and the environment say about a session."""

    greeting: bytes
    databytes: int  # 0: no limit
    bad_senders: AddressList
    recipient_hosts: RecipientHosts
    relay_suffix: bytes | None  # RELAYCLIENT
    local_ip_host: bytes | None  # localiphost
    is_local_ip: Callable[[bytes], bool]
    check_recipient: RecipientCheck


class SmtpdSession(Session):
    """A conversation with a stranger."""

    HELP = b"netqmail home page: http://qmail.org/netqmail"

    def __init__(self, policy: Policy, event: Callable[[str], None]) -> None:
        super().__init__(policy.greeting, policy.databytes, event)
        self.policy = policy

    def check_recipient(self, address: bytes) -> bytes | Reply:
        """Return the recipient as it goes into the envelope, or the refusal."""
        policy = self.policy
        sender = self.sender or b""
        if not address:
            # qmail-queue has no word for it; netqmail would queue mail to nobody@envnoathost.
            return reply.SYNTAX
        address = self.name_for_literal(address)
        if sender in policy.bad_senders:
            return BAD_SENDER
        if policy.relay_suffix is not None:
            address += policy.relay_suffix
        elif not policy.recipient_hosts.admits(address):
            return NO_GATEWAY
        return policy.check_recipient(sender, address) or address

    def name_for_literal(self, address: bytes) -> bytes:
        """Return address with our own IP address in brackets replaced by our name."""
        policy = self.policy
        if policy.local_ip_host is None:
            return address
        ip = literal(address)
        if ip is None or not policy.is_local_ip(ip):
            return address
        return address[: address.rindex(b"@") + 1] + policy.local_ip_host
