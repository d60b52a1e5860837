"""A DNS server in a container of its own, with the records that a test gives it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import appliance as harness
from harness import dnsserver
from harness.appliance import Appliance


@contextmanager
def nameserver(appliance: Appliance, records: list[str]) -> Iterator[str]:
    """Run a server on the appliance's network until the end of the context; give its address.

    Args:
        appliance: whose image and network it has.
        records: ``NAME=TYPE=RECORD``; no other names exist.
    """
    client = harness.client()
    source = Path(dnsserver.__file__).read_text()
    container = client.containers.create(
        appliance.image,
        entrypoint=["python3", "-I", "-c", source, "0.0.0.0", "53", *records],
        network=next(iter(appliance.container.attrs["NetworkSettings"]["Networks"])),
    )
    try:
        container.start()
        container.reload()
        (network,) = container.attrs["NetworkSettings"]["Networks"].values()
        yield network["IPAddress"]
    finally:
        container.remove(force=True, v=True)
        client.close()
