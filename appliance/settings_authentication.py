"""The settings of message authentication: what is signed, and what becomes of what is not."""

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator
from pydantic_settings import BaseSettings

from appliance import values
from appliance.setting import OFF, Seconds, setting

Algorithm = Literal["rsa", "ed25519"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)


def _algorithms(value: object) -> object:
    words = values.words(value)
    return () if isinstance(words, tuple | list) and list(words) in ([w] for w in OFF) else words


class AuthenticationSettings(BaseSettings):
    """Settings of dkimsignd and mailauthd."""

    dkim: Annotated[tuple[Algorithm, ...], BeforeValidator(_algorithms)] = setting(
        ("rsa",),
        "off, rsa, ed25519 or rsa,ed25519",
        "Whether submitted mail is signed, and which keys a new domain gets; see "
        "[mail-authentication.md](mail-authentication.md) and `postern dkim`.",
    )
    mail_authentication: Literal["off", "report", "enforce"] = setting(
        "report",
        "off, report or enforce",
        "SPF, DKIM and DMARC of mail that arrives: report says in an Authentication-Results "
        "field what they found; enforce also refuses what fails DMARC where the author's "
        "domain asks for that (p=reject).",
    )
    mail_authentication_timeout: Annotated[Seconds, Field(ge=1, le=60)] = setting(
        10,
        "a number of seconds from 1 to 60",
        "How long the DNS may take for all that a message needs; then the result is temperror.",
    )

    @field_validator("dkim")
    @classmethod
    def _dkim(cls, value: tuple[Algorithm, ...]) -> tuple[Algorithm, ...]:
        return tuple(name for name in ALGORITHMS if name in value)
