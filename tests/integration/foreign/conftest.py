"""An image with foreign programs, and an appliance of it that runs them beside its own."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import appliance as harness
from harness import wait
from harness.appliance import Appliance
from harness.clients import run
from harness.foreign import SERVICES, SPEAKS_FIRST, Foreign, greeting

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def foreign_image(appliance: Appliance, docker_compose_project_name: str) -> Iterator[str]:
    """The image under test with foreign programs in it; removed again, its apt layer kept."""
    tag = f"{docker_compose_project_name}-foreign"
    run(
        ["env", "DOCKER_BUILDKIT=0", "docker", "build", "--force-rm", "-q", "-t", tag]
        + ["--build-arg", f"APPLIANCE_IMAGE={appliance.image}", str(HERE)],
        seconds=300,
    )
    yield tag
    subprocess.run(["docker", "image", "rm", "--no-prune", tag], check=True, capture_output=True)


@pytest.fixture(scope="session")
def foreign(foreign_image: str, docker_compose_project_name: str) -> Iterator[Foreign]:
    """A container of that image: the appliance with tcpserver in acceptserver's place."""
    client = harness.client()
    published = [*harness.PORTS.values(), *SERVICES.values()]
    container = client.containers.create(
        foreign_image,
        name=f"{docker_compose_project_name}-foreign",
        environment={
            "POSTERN_HOSTNAME": "mail.example.test",
            "POSTERN_DOMAINS": "example.test",
            "POSTERN_UCSPI": "tcpserver",
        },
        ports={f"{port}/tcp": ("127.0.0.1", 0) for port in published},
        cap_drop=["ALL"],
        cap_add=["CHOWN", "SETUID", "SETGID", "NET_BIND_SERVICE", "KILL"],
        security_opt=["no-new-privileges:true"],
    )
    try:
        container.start()
        running = Appliance(container)
        running.wait_healthy()
        container.exec_run(["start-foreign"], detach=True)
        container.reload()
        ports = {
            name: int(bindings[0]["HostPort"])
            for name, port in SERVICES.items()
            if (bindings := container.ports[f"{port}/tcp"])
        }
        found = Foreign(running, ports)
        for name in SPEAKS_FIRST:
            # The engine's proxy takes connections before the service does.
            wait.until(f"the greeting of {name}", lambda name=name: greeting(found, name))  # type: ignore[misc]
        yield found
    finally:
        container.remove(force=True, v=True)
        client.close()
