"""The settings of forwarded mail: under which sender it goes on."""

from typing import Annotated

from pydantic import BeforeValidator, field_validator
from pydantic_settings import BaseSettings

from appliance import values
from appliance.setting import Switch, setting

SECRET_SIZE = 16  # characters at least

Secrets = Annotated[tuple[str, ...], BeforeValidator(values.lines)]


class SrsSettings(BaseSettings):
    """Settings of SRS, which rewrites the sender of mail that is forwarded elsewhere."""

    srs: Switch = setting(
        True,
        "on or off",
        "Whether mail from elsewhere that is forwarded elsewhere (aliases, `.qmail` files) gets "
        "an envelope sender here, so that it passes SPF; see [forwarding.md](forwarding.md).",
    )
    srs_domain: str = setting(
        "",
        "one of the domains",
        "The domain of these senders, to which bounces come back.",
        shown="the first of `domains`",
    )
    srs_secrets: Secrets = setting(
        (),
        f"words of at least {SECRET_SIZE} characters, with commas or line ends between them",
        "What such senders are signed with: the first signs, all are accepted.",
        secret=True,
        shown="made at the first start; `postern srs rotate` replaces it",
    )

    @field_validator("srs_domain")
    @classmethod
    def _srs_domain(cls, value: str) -> str:
        return values.domain(value)

    @field_validator("srs_secrets")
    @classmethod
    def _srs_secrets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for secret in value:
            if len(secret) < SECRET_SIZE or not secret.isascii() or not secret.isprintable():
                raise ValueError(f"a secret has {SECRET_SIZE} or more printable characters")
            if " " in secret or secret.startswith("#"):
                raise ValueError("a secret is one word, and no comment")
        return value
