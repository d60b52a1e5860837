"""A second container of the appliance's image, with settings of its own."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

from harness import appliance as harness
from harness.appliance import Appliance

CAPABILITIES = ["CHOWN", "SETUID", "SETGID", "NET_BIND_SERVICE", "KILL"]


@contextmanager
def another(
    appliance: Appliance,
    *,
    dns: list[str] | None = None,
    files: dict[str, bytes] | None = None,
    **variables: str,
) -> Iterator[Appliance]:
    """Run a container for the domain of the tests until the end of the context.

    Args:
        appliance: whose image and network it has.
        dns: addresses of servers to ask instead of the host's.
        files: path -> content of what is put into it, for everybody to read.
        variables: settings by their variables' names.
    """
    client = harness.client()
    networks = appliance.container.attrs["NetworkSettings"]["Networks"]
    container = client.containers.create(
        appliance.image,
        environment={
            "POSTERN_HOSTNAME": f"other.{appliance.domain}",
            "POSTERN_DOMAINS": appliance.domain,
            **variables,
        },
        network=next(iter(networks)),
        ports={f"{port}/tcp": ("127.0.0.1", 0) for port in harness.PORTS.values()},
        dns=dns,
        cap_drop=["ALL"],
        cap_add=CAPABILITIES,
    )
    try:
        if files:
            container.put_archive("/", archive(files))
        container.start()
        running = Appliance(container)
        running.wait_healthy()
        yield running
    finally:
        container.remove(force=True, v=True)
        client.close()


def archive(files: dict[str, bytes]) -> bytes:
    """Return a tar archive of files, for everybody to read."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path, data in files.items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return content.getvalue()
