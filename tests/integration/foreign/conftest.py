"""Images with foreign programs, and appliances of them that run these beside their own."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import appliance as harness
from harness import wait
from harness.appliance import Appliance
from harness.clients import run
from harness.foreign import POSTFIX_SERVICES, SERVICES, SPEAKS_FIRST, Foreign, greeting

HERE = Path(__file__).parent


@contextmanager
def image(appliance: Appliance, dockerfile: str, tag: str) -> Iterator[str]:
    """The image under test with foreign programs in it; removed again, its apt layer kept."""
    run(
        ["env", "DOCKER_BUILDKIT=0", "docker", "build", "--force-rm", "-q", "-t", tag]
        + ["-f", str(HERE / dockerfile)]
        + ["--build-arg", f"APPLIANCE_IMAGE={appliance.image}", str(HERE)],
        seconds=300,
    )
    yield tag
    subprocess.run(["docker", "image", "rm", "--no-prune", tag], check=True, capture_output=True)


@contextmanager
def container(
    tag: str, services: dict[str, int], speaks_first: list[str], **variables: str
) -> Iterator[Foreign]:
    """Run an appliance of that image with its foreign services until the end of the context."""
    client = harness.client()
    published = [*harness.PORTS.values(), *services.values()]
    made = client.containers.create(
        tag,
        name=tag,
        environment={
            "POSTERN_HOSTNAME": "mail.example.test",
            "POSTERN_DOMAINS": "example.test",
            "POSTERN_UCSPI": "tcpserver",
            **variables,
        },
        ports={f"{port}/tcp": ("127.0.0.1", 0) for port in published},
        cap_drop=["ALL"],
        cap_add=["CHOWN", "SETUID", "SETGID", "NET_BIND_SERVICE", "KILL"],
        security_opt=["no-new-privileges:true"],
        sysctls={"net.ipv6.conf.all.disable_ipv6": "0"},
    )
    try:
        made.start()
        running = Appliance(made)
        running.wait_healthy()
        made.exec_run(["start-foreign"], detach=True)
        made.reload()
        ports = {
            name: int(bindings[0]["HostPort"])
            for name, port in services.items()
            if (bindings := made.ports[f"{port}/tcp"])
        }
        found = Foreign(running, ports)
        for name in speaks_first:
            # The engine's proxy takes connections before the service does.
            wait.until(f"the greeting of {name}", lambda name=name: greeting(found, name))  # type: ignore[misc]
        yield found
    finally:
        made.remove(force=True, v=True)
        client.close()


@pytest.fixture(scope="session")
def foreign(appliance: Appliance, docker_compose_project_name: str) -> Iterator[Foreign]:
    """The appliance with tcpserver in acceptserver's place, and exim beside it."""
    with (
        image(appliance, "Dockerfile", f"{docker_compose_project_name}-foreign") as tag,
        container(tag, SERVICES, SPEAKS_FIRST) as found,
    ):
        yield found


@pytest.fixture(scope="session")
def postfix(appliance: Appliance, docker_compose_project_name: str) -> Iterator[Foreign]:
    """The MX with the tcpserver that knows IPv6, and postfix beside it."""
    with (
        image(appliance, "Dockerfile.postfix", f"{docker_compose_project_name}-postfix") as tag,
        container(tag, POSTFIX_SERVICES, [*POSTFIX_SERVICES], POSTERN_SERVICES="mx") as found,
    ):
        yield found
