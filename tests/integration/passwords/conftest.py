"""Servers that know passwords, and appliances that ask them."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from harness import appliance as harness
from harness import wait
from harness.another import CAPABILITIES
from harness.appliance import Appliance
from harness.clients import run
from harness.passwords import COMMANDS, LDAP, SQL, WHERE, Servers, configure, files, put

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def _build(folder: str, tag: str, **arguments: str) -> None:
    base = (ROOT / ".state/base-image").read_text().strip()
    given = {"BASE_IMAGE": base, **arguments}
    run(
        ["env", "DOCKER_BUILDKIT=0", "docker", "build", "--force-rm", "-q", "-t", tag]
        + [word for name, value in given.items() for word in ("--build-arg", f"{name}={value}")]
        + [str(HERE / folder)],
        seconds=300,
    )


def _remove(tag: str) -> None:
    subprocess.run(["docker", "image", "rm", "--no-prune", tag], check=True, capture_output=True)


@pytest.fixture(scope="session")
def network(appliance: Appliance) -> str:
    """The network that everything here is in."""
    return str(next(iter(appliance.container.attrs["NetworkSettings"]["Networks"])))


@pytest.fixture(scope="session")
def servers(network: str, docker_compose_project_name: str) -> Iterator[Servers]:
    """slapd and postgresql, at names that their certificate has, and at one that it has not."""
    tag = f"{docker_compose_project_name}-password-servers"
    _build("servers", tag)
    client = harness.client()
    aliases = ["ldap.example.test", "db.example.test", "other.example.test"]
    container = client.containers.create(
        tag,
        network=network,
        networking_config={network: client.api.create_endpoint_config(aliases=aliases)},
    )
    try:
        container.start()
        found = Servers(container)
        wait.until("the servers", found.ready)
        yield found
    finally:
        container.remove(force=True, v=True)
        client.close()
        _remove(tag)


@pytest.fixture(scope="session")
def start(
    appliance: Appliance, network: str, servers: Servers, docker_compose_project_name: str
) -> Iterator[Callable[[str], Appliance]]:
    """A function that starts an appliance with one of the checkpasswords, once."""
    tag = f"{docker_compose_project_name}-passwords"
    _build("appliance", tag, APPLIANCE_IMAGE=appliance.image)
    client = harness.client()
    ready: set[str] = set()
    with ExitStack() as stack:
        stack.callback(client.close)
        stack.callback(_remove, tag)
        started: dict[str, Appliance] = {}
        # All at once: most of the time that they take is spent waiting.
        for kind, command in COMMANDS.items():
            made = _container(client, tag, network, command)
            stack.callback(made.remove, force=True, v=True)
            put(made, files(servers.authority()))
            made.start()
            started[kind] = Appliance(made)

        def begin(kind: str) -> Appliance:
            if kind not in ready:
                started[kind].wait_healthy()
                add = "for address; do postern user add --no-password $address; done"
                status, printed = started[kind].run(["sh", "-ec", add, "sh", *WHERE])
                assert status == 0, printed
                ready.add(kind)
            return started[kind]

        yield begin


def _container(client: Any, tag: str, network: str, command: str) -> Any:
    return client.containers.create(
        tag,
        environment={
            "POSTERN_HOSTNAME": "mail.example.test",
            "POSTERN_DOMAINS": "example.test",
            "POSTERN_CHECKPASSWORD": command,
            "POSTERN_GUARD_ALLOW": "0.0.0.0/0",
        },
        network=network,
        ports={f"{port}/tcp": ("127.0.0.1", 0) for port in harness.PORTS.values()},
        cap_drop=["ALL"],
        cap_add=CAPABILITIES,
        security_opt=["no-new-privileges:true"],
    )


@pytest.fixture(params=list(COMMANDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Each of the programs: ldap, pam, sql."""
    return str(request.param)


@pytest.fixture
def running(kind: str, start: Callable[[str], Appliance]) -> Appliance:
    """The appliance with that program."""
    return start(kind)


@pytest.fixture
def ldap(start: Callable[[str], Appliance]) -> Iterator[Appliance]:
    """The appliance with checkpassword-ldap; its control file is put back after the test."""
    running = start("ldap")
    yield running
    configure(running, "ldap", LDAP)


@pytest.fixture
def sql(start: Callable[[str], Appliance]) -> Iterator[Appliance]:
    """The appliance with checkpassword-sql; its control file is put back after the test."""
    running = start("sql")
    yield running
    configure(running, "sql", SQL)
