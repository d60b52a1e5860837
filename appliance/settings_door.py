"""The settings of the MX's door: who is looked up, and who waits, before the greeting."""

import ipaddress
from typing import Annotated

from pydantic import BeforeValidator, field_validator
from pydantic_settings import BaseSettings

from appliance import values
from appliance.setting import Seconds, setting

Lists = Annotated[tuple[str, ...], BeforeValidator(values.words)]
# Whoever asks for health, and this host's own programs.
LOOPBACK = ("127.0.0.0/8", "::1/128")
LONGEST_DELAY = 120  # seconds; a client gives up after 300 (RFC 5321, 4.5.3.2.1)


class DoorSettings(BaseSettings):
    """Settings of the service mx alone."""

    dnsbl: Lists = setting(
        (),
        "zones such as bl.example.org, or zone=codes such as bl.example.org=127.0.0.[2..11]",
        "Lists in the DNS of those from whom no mail is taken (553, with the list's reason). "
        "Ask them by way of a DNS cache of your own; see rblsmtpd(8).",
    )
    dnsbl_allow: Lists = setting(
        (),
        "addresses, networks such as 192.0.2.0/24, and zones of lists of good senders",
        "From whom mail is taken whatever `dnsbl` says. Addresses and networks do not wait for "
        "`greet_delay` either.",
    )
    greet_delay: Seconds = setting(
        0,
        f"a number of seconds up to {LONGEST_DELAY}",
        "How long a client of port 25 waits for its greeting. One that speaks before it is "
        "refused: a program that only sends spam. Each that waits is one of "
        "`max_connections`.",
        ge=0,
        le=LONGEST_DELAY,
    )

    @field_validator("dnsbl")
    @classmethod
    def _dnsbl(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(values.dns_list, value)))

    @field_validator("dnsbl_allow")
    @classmethod
    def _dnsbl_allow(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(
                values.network(item) if _is_network(item) else values.dns_list(item)
                for item in value
            )
        )

    @property
    def allowed_networks(self) -> tuple[str, ...]:
        """The clients that are neither looked up nor kept waiting."""
        return tuple(dict.fromkeys((*LOOPBACK, *filter(_is_network, self.dnsbl_allow))))

    @property
    def allow_lists(self) -> tuple[str, ...]:
        """The lists of good senders, which are asked before the others."""
        return tuple(item for item in self.dnsbl_allow if not _is_network(item))


def _is_network(item: str) -> bool:
    """Whether an item is meant as a network, be it a good one or not: no zone looks so."""
    if ":" in item or "/" in item:
        return True
    try:
        ipaddress.ip_address(item)
    except ValueError:
        return False
    return True
