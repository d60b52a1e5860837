"""The settings of mail that leaves: how much, whose TLS is to be trusted, who is asked."""

import ipaddress
from typing import Annotated, Literal

from pydantic import BeforeValidator, field_validator
from pydantic_settings import BaseSettings

from appliance import values
from appliance.setting import Switch, setting

Lines = Annotated[tuple[str, ...], BeforeValidator(lambda value: values.lines(value, ";"))]
Addresses = Annotated[tuple[str, ...], BeforeValidator(values.words)]


class OutboundSettings(BaseSettings):
    """Settings of qmail-remote alone."""

    sending_limit: int = setting(
        0,
        "a number of recipients; 0 for no limit",
        "To how many recipients one account may send mail in an hour, forwards included. More "
        "is refused for now.",
        ge=0,
        le=1000000,
    )
    mta_sts: Switch = setting(
        True,
        "on or off",
        "Whether a domain's MTA-STS policy counts for mail to it; see [outbound.md](outbound.md).",
    )
    dane: Literal["auto", "on", "off"] = setting(
        "auto",
        "auto, on or off",
        "Whether TLSA records count for mail to a server. On says that the resolver validates "
        "DNSSEC and that nobody can get between it and this host; auto takes `options "
        "trust-ad` in /etc/resolv.conf for that.",
    )
    resolvers: Addresses = setting(
        (),
        "addresses of name servers",
        "Whom qmail-remote asks for names.",
        shown="those in /etc/resolv.conf",
    )
    tls_destinations: Lines = setting(
        (),
        "lines like example.org:verify, with semicolons or line ends between them",
        "What TLS has to be like for mail to a domain, as in control/tlsdestinations: none, "
        "may, require, verify or verify:name,name; see [outbound.md](outbound.md).",
    )
    tls_authorities: str = setting(
        "",
        "the path of a PEM file",
        "Certificate authorities to believe in beside the usual ones, for mail that leaves. "
        "Everybody must be able to read it.",
        path=True,
        shown="none",
    )

    @field_validator("resolvers")
    @classmethod
    def _resolvers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(ipaddress.ip_address(item)) for item in value))

    @field_validator("tls_destinations")
    @classmethod
    def _tls_destinations(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(values.tls_destination, value))

    @field_validator("tls_authorities")
    @classmethod
    def _tls_authorities(cls, value: str) -> str:
        if not value.startswith("/") or "\n" in value:
            raise ValueError("no absolute path")
        return value
