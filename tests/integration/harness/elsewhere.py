"""A second appliance, which is the MX of another domain and lets nobody else use its name."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness import appliance as harness
from harness.another import CAPABILITIES, archive
from harness.appliance import Appliance

DOMAIN = "elsewhere.test"


class Elsewhere(Appliance):
    """The appliance of that domain."""

    @property
    def domain(self) -> str:
        return DOMAIN


@contextmanager
def elsewhere(appliance: Appliance) -> Iterator[Elsewhere]:
    """Run a second container of the image on the first one's network, named ``elsewhere``.

    It believes no stranger that a message comes from its own domain.
    """
    client = harness.client()
    networks = appliance.container.attrs["NetworkSettings"]["Networks"]
    container = client.containers.create(
        appliance.image,
        environment={
            "POSTERN_HOSTNAME": f"mx.{DOMAIN}",
            "POSTERN_DOMAINS": DOMAIN,
            "POSTERN_SMTPROUTES": f"{appliance.domain}:{appliance.container.name}:25",
        },
        ports={f"{port}/tcp": ("127.0.0.1", 0) for port in harness.PORTS.values()},
        cap_drop=["ALL"],
        cap_add=CAPABILITIES,
    )
    try:
        container.put_archive(
            "/", archive({"/var/qmail/control/badmailfrom": b"@elsewhere.test\n"})
        )
        client.networks.get(next(iter(networks))).connect(container, aliases=["elsewhere"])
        container.start()
        running = Elsewhere(container)
        running.wait_healthy()
        yield running
    finally:
        container.remove(force=True, v=True)
        client.close()
