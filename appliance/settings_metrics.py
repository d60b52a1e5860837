"""The settings of what others watch the appliance with."""

import re
from typing import NamedTuple

from pydantic import field_validator
from pydantic_settings import BaseSettings

from appliance import values
from appliance.setting import setting

_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")


class Listen(NamedTuple):
    """Where something listens."""

    address: str  # an IP address, or 0 for all of both families
    port: int


def listen(text: str) -> Listen:
    """Return the address and port of ``ADDRESS:PORT`` or ``[ADDRESS]:PORT``.

    Raises:
        ValueError: it is none.
    """
    address, colon, port = text.strip().rpartition(":")
    if not colon or not _PORT.match(port) or int(port) > 65535:
        raise ValueError("no port behind a colon")
    if ":" in address and not (address.startswith("[") and address.endswith("]")):
        raise ValueError("an IPv6 address without brackets")
    return Listen(values.bind_address(address), int(port))


class MetricsSettings(BaseSettings):
    """Settings of the service metrics."""

    metrics_listen: str = setting(
        "",
        "address:port, such as 0:9626 for all addresses, or [::1]:9626",
        "Where Prometheus can fetch metrics; see [metrics.md](metrics.md).",
        shown="none; there are no metrics",
    )

    @field_validator("metrics_listen")
    @classmethod
    def _metrics_listen(cls, value: str) -> str:
        if not value:
            return value
        address, port = listen(value)
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"

    @property
    def metrics(self) -> Listen | None:
        """Where metrics are served; None when they are not."""
        return listen(self.metrics_listen) if self.metrics_listen else None
