"""The settings of scanners for viruses and spam, which run elsewhere."""

import re
from typing import Literal

from pydantic import field_validator
from pydantic_settings import BaseSettings

from appliance.setting import setting

_HOST = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[1-9]\d{0,4})?"
CLAMD = re.compile(rf"clamd:({_HOST}|/[^\s]+)\Z")
RSPAMD = re.compile(rf"rspamd:http://{_HOST}/?\Z")


class ScanningSettings(BaseSettings):
    """Settings of qmail-qfilter-scan."""

    virus_scanner: str = setting(
        "",
        "clamd:HOST:PORT or clamd:/PATH/OF/A/SOCKET",
        "A clamd that looks for viruses in mail that arrives and in mail that is submitted; see "
        "[scanning.md](scanning.md).",
        shown="none",
    )
    spam_scanner: str = setting(
        "",
        "rspamd:http://HOST:PORT",
        "An rspamd, its normal worker, that judges mail that arrives.",
        shown="none",
    )
    scanner_down: Literal["defer", "accept"] = setting(
        "defer",
        "defer or accept",
        "What becomes of a message while a scanner does not answer: the client is asked to try "
        "again later, or it is taken unscanned.",
    )

    @field_validator("virus_scanner")
    @classmethod
    def _virus_scanner(cls, value: str) -> str:
        if value and not CLAMD.match(value):
            raise ValueError("not the address of a clamd")
        return value

    @field_validator("spam_scanner")
    @classmethod
    def _spam_scanner(cls, value: str) -> str:
        if value and not RSPAMD.match(value):
            raise ValueError("not the address of an rspamd")
        return value
