"""Clients that reset their connection: nothing of them stays behind."""

import socket
import struct

import pytest
from harness import wait
from harness.appliance import PORTS, Appliance
from harness.clients import Endpoint
from harness.dialogue import Dialogue

LIMIT = 60  # connections of each service, in compose.test.yaml
RESET = struct.pack("ii", 1, 0)  # struct linger: on, for no time


@pytest.mark.parametrize("service", PORTS)
def test_connections_that_are_reset_at_once_leave_their_places(
    service: str, appliance: Appliance, at: Endpoint
) -> None:
    for _ in range(LIMIT + 10):
        # Past the engine's proxy, which would make an orderly end of it.
        client = socket.create_connection((appliance.address, PORTS[service]), timeout=10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()

    def served() -> bool:
        try:
            with Dialogue(at, service) as dialogue:
                return dialogue.greeting[0][:3] in (b"220", b"+OK")
        except (OSError, IndexError):
            return False

    # Half of the time after which a session whose end goes unnoticed is ended.
    wait.until("a place", served, seconds=15)
