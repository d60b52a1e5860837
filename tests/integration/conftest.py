"""Start the shipped compose file under a name and ports of its own, once for all tests."""

import os
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from harness import appliance as harness
from harness.another import another
from harness.appliance import Appliance
from harness.clients import Account, Endpoint
from harness.elsewhere import Elsewhere
from harness.elsewhere import elsewhere as running_elsewhere

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# The shipped file's own variables: any free port on the loopback address.
SETTINGS = {
    "POSTERN_HOSTNAME": "mail.example.test",
    "POSTERN_DOMAINS": "example.test",
    "PUBLISH_ADDRESS": "127.0.0.1",
    "PUBLISH_MX": "0",
    "PUBLISH_SUBMISSION": "0",
    "PUBLISH_SUBMISSIONS": "0",
    "PUBLISH_POP3": "0",
    "PUBLISH_POP3S": "0",
}


@pytest.fixture(scope="session")
def docker_compose_command() -> str:
    return "docker compose"


@pytest.fixture(scope="session")
def docker_compose_file() -> list[str]:
    return [str(ROOT / "compose" / "compose.yaml"), str(HERE / "compose.test.yaml")]


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    return f"postern-test-{os.getpid()}-{secrets.token_hex(3)}"


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    os.environ.update(SETTINGS)
    return ["up --no-build --detach"]


@pytest.fixture(scope="session")
def docker_cleanup() -> list[str]:
    return ["down --volumes --timeout 5"]


@pytest.fixture(scope="session")
def appliance(docker_services: object, docker_compose_project_name: str) -> Iterator[Appliance]:
    """The appliance under test, healthy."""
    client = harness.client()
    (container,) = client.containers.list(
        all=True, filters={"label": f"com.docker.compose.project={docker_compose_project_name}"}
    )
    running = Appliance(container)
    running.wait_healthy()
    yield running
    client.close()


@pytest.fixture(scope="session")
def elsewhere(appliance: Appliance) -> Iterator[Elsewhere]:
    """The MX of another domain, which refuses that domain's senders from anybody else."""
    with running_elsewhere(appliance) as running:
        yield running


@pytest.fixture(scope="session")
def measured(appliance: Appliance) -> Iterator[Appliance]:
    """An appliance that serves metrics."""
    with another(appliance, POSTERN_METRICS_LISTEN="0:9626") as running:
        yield running


@pytest.fixture
def at(appliance: Appliance) -> Endpoint:
    """Where the appliance's services are published."""
    return appliance.endpoint


@pytest.fixture
def account(appliance: Appliance) -> Account:
    """A fresh account with an empty mailbox."""
    return appliance.add_account()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put the container's last log lines beside a failure."""
    report = yield
    named = getattr(item, "funcargs", {})
    running = named["foreign"].appliance if "foreign" in named else named.get("appliance")
    if report.failed and running is not None:
        report.sections.append(("log of the appliance", running.logs(tail=80)))
    return report
