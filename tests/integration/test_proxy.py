"""Behind a proxy that speaks the PROXY protocol, the client's own address counts."""

import struct
from collections.abc import Iterator

import pytest
from harness import wait
from harness.another import another
from harness.appliance import Appliance
from harness.dialogue import Dialogue

CLIENT = "203.0.113.77"
V1 = b"PROXY TCP4 203.0.113.77 192.0.2.1 40000 25\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack(
    "!H4B4BHH", 12, 203, 0, 113, 77, 192, 0, 2, 1, 40000, 25
)


@pytest.fixture(scope="module")
def proxied(appliance: Appliance) -> Iterator[Appliance]:
    """An appliance to which the container network's gateway is a proxy."""
    networks = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16"
    with another(appliance, POSTERN_PROXY_NETWORKS=networks) as running:
        yield running


def connect(proxied: Appliance, service: str, header: bytes) -> Dialogue:
    """Return a dialogue that begins with header, and then TLS where it is implicit."""
    dialogue = Dialogue(proxied.endpoint, service, greet=False, tls=False)
    dialogue.send(header)
    if service in ("submissions", "pop3s"):
        dialogue.start_tls_now()
    dialogue.greeting = dialogue.reply()
    return dialogue


@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("service", ["mx", "submission", "submissions", "pop3", "pop3s"])
def test_the_log_speaks_of_the_client(service: str, header: bytes, proxied: Appliance) -> None:
    seen = proxied.logs().count(f"ip={CLIENT}")
    with connect(proxied, service, header) as dialogue:
        assert dialogue.greeting
        assert dialogue.code(b"QUIT") in (b"221", b"+OK")
    wait.until("the client's address", lambda: proxied.logs().count(f"ip={CLIENT}") > seen)


@pytest.mark.parametrize("start", [b"EHLO client.example\r\n", b"PROXY TCP4 1 2 3 4\r\n"])
def test_a_proxy_without_a_good_header_is_closed(start: bytes, proxied: Appliance) -> None:
    with Dialogue(proxied.endpoint, "mx", greet=False) as dialogue:
        dialogue.send(start)
        assert dialogue.rest() == b""


def test_from_anybody_else_a_header_is_an_unknown_command(appliance: Appliance) -> None:
    with Dialogue(appliance.endpoint, "mx") as dialogue:
        assert dialogue.code(V1.rstrip()) == b"502"
    assert f"ip={CLIENT}" not in appliance.logs()
