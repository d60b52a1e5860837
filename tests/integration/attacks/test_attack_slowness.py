"""Slow clients: each wait has an end that a byte now and then does not push on.

In an appliance of their own, whose limits are seconds where the shipped ones are minutes.
"""

import threading
import time
from collections.abc import Iterator

import pytest
from harness.another import another
from harness.appliance import Appliance
from harness.clients import Account
from harness.dialogue import Dialogue

SERVICES = ("mx", "submission", "submissions", "pop3", "pop3s")
STARTTLS = ("mx", "submission", "pop3")
LINE, PREAUTH, HANDSHAKE, SESSION = 4, 9, 3, 10  # seconds; 10 is the least of POSTERN_SMTP_TIMEOUT
SLACK = 8  # seconds, for a machine that is busy

# The two limits before AUTH are variables of authup, the third an option of the server.
HURRY = f"""
cd /run/postern/service
for service in {" ".join(SERVICES)}; do
    echo {LINE} >$service/env/AUTHUP_LINE_SECONDS
    echo {PREAUTH} >$service/env/AUTHUP_PREAUTH_SECONDS
    sed -i 's/^acceptserver$/acceptserver -K {HANDSHAKE}000/' $service/run
    s6-svc -wR -T 20000 -r $service
done
"""


@pytest.fixture(scope="module")
def hurried(appliance: Appliance) -> Iterator[Appliance]:
    """An appliance that waits for seconds only."""
    with another(
        appliance,
        POSTERN_GUARD_ALLOW="0.0.0.0/0",
        POSTERN_SMTP_TIMEOUT=str(SESSION),
        POSTERN_POP3_TIMEOUT=str(SESSION),
    ) as running:
        status, printed = running.run(["sh", "-ec", HURRY])
        assert status == 0, printed
        running.wait_healthy()
        yield running


def lifetime(dialogue: Dialogue, what: bytes = b"x", most: float = 60) -> float:
    """Send that once a second, read whatever comes; return the seconds until the end."""
    began = time.monotonic()
    while time.monotonic() - began < most:
        try:
            dialogue.send(what)
        except OSError:
            break
        dialogue.socket.settimeout(1)
        try:
            while dialogue._receive():
                pass
            break
        except TimeoutError:
            continue
    return time.monotonic() - began


def opened(hurried: Appliance, service: str, *, tls: bool = False) -> Dialogue:
    """Return a dialogue that is greeted; with tls, inside of it also where that has to begin."""
    dialogue = Dialogue(hurried.endpoint, service)
    if tls and service in STARTTLS:
        if not dialogue.pop3:
            dialogue.say(b"EHLO client.example")
        dialogue.start_tls()
    return dialogue


def sessions(hurried: Appliance, user: Account) -> dict[str, Dialogue]:
    """Return a session of each kind that ends in a message."""
    found = {
        "mx": opened(hurried, "mx"),
        "mx in TLS": opened(hurried, "mx", tls=True),
        "submission": opened(hurried, "submission", tls=True),
        "submissions": opened(hurried, "submissions"),
    }
    for name in ("submission", "submissions"):
        found[name].log_in(user)
    return found


def in_a_message(hurried: Appliance, user: Account) -> dict[str, Dialogue]:
    """Return sessions that have begun a message."""
    found = sessions(hurried, user)
    for dialogue in found.values():
        dialogue.say(b"EHLO client.example")
        assert dialogue.code(b"MAIL FROM:<" + user.address.encode() + b">") == b"250"
        assert dialogue.code(b"RCPT TO:<" + user.address.encode() + b">") == b"250"
        assert dialogue.code(b"DATA") == b"354"
    return found


def in_an_exchange(hurried: Appliance) -> dict[str, Dialogue]:
    """Return connections that have been asked for a user name."""
    found = {service: opened(hurried, service, tls=True) for service in SERVICES[1:3]}
    for dialogue in found.values():
        dialogue.say(b"EHLO client.example")
        assert dialogue.code(b"AUTH LOGIN") == b"334"
    return found


def in_a_handshake(hurried: Appliance) -> dict[str, Dialogue]:
    """Return connections in which the server waits for a ClientHello."""
    found = {
        service: Dialogue(hurried.endpoint, service, greet=False, tls=False) for service in SERVICES
    }
    for service in STARTTLS:
        dialogue = found[service]
        dialogue.reply()
        assert dialogue.code(b"STLS" if dialogue.pop3 else b"STARTTLS") in (b"220", b"+OK")
    return found


@pytest.fixture(scope="module")
def lifetimes(hurried: Appliance) -> dict[str, dict[str, float]]:
    """How long each of the slow clients below was served: hazard -> kind -> seconds.

    All are slow at the same time, or these tests would be slow, too.
    """
    user = hurried.add_account()
    every, rest = SERVICES, SERVICES[1:]
    hazards: dict[str, tuple[bytes, dict[str, Dialogue]]] = {
        "message": (b"x", in_a_message(hurried, user)),
        "session": (b"x", sessions(hurried, user)),
        "commands": (b"NOOP\r\n", {s: opened(hurried, s, tls=True) for s in rest}),
        "silence": (b"", {s: opened(hurried, s) for s in every}),
        "exchange": (b"A", in_an_exchange(hurried)),
        "line": (b"x", {s: opened(hurried, s) for s in ("submission", "pop3")}),
        "line in TLS": (b"x", {s: opened(hurried, s, tls=True) for s in rest}),
        "silent handshake": (b"", in_a_handshake(hurried)),
        "handshake": (b"\x16", in_a_handshake(hurried)),
    }
    results: dict[str, dict[str, float]] = {hazard: {} for hazard in hazards}

    def measure(hazard: str, what: bytes, name: str, dialogue: Dialogue) -> None:
        with dialogue:
            results[hazard][name] = lifetime(dialogue, what)

    threads = [
        threading.Thread(target=measure, args=(hazard, what, *kind), daemon=True)
        for hazard, (what, dialogues) in hazards.items()
        for kind in dialogues.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def assert_ended(lifetimes: dict[str, float], limit: float) -> None:
    """Check that each came to its end in time, and not at once."""
    assert lifetimes
    assert max(lifetimes.values()) < limit + SLACK, lifetimes
    assert min(lifetimes.values()) > 1, lifetimes


Lifetimes = dict[str, dict[str, float]]


@pytest.mark.parametrize("hazard", ["line", "line in TLS"])
def test_one_byte_a_second_does_not_outlast_a_command_before_auth(
    hazard: str, lifetimes: Lifetimes
) -> None:
    assert_ended(lifetimes[hazard], LINE)


def test_one_byte_a_second_does_not_outlast_an_auth_exchange(lifetimes: Lifetimes) -> None:
    assert_ended(lifetimes["exchange"], LINE)


def test_a_command_a_second_does_not_outlast_the_time_before_auth(lifetimes: Lifetimes) -> None:
    assert_ended(lifetimes["commands"], PREAUTH)


def test_one_byte_a_second_does_not_outlast_a_command_of_a_session(lifetimes: Lifetimes) -> None:
    assert_ended(lifetimes["session"], SESSION)


def test_one_byte_a_second_does_not_outlast_a_message(lifetimes: Lifetimes) -> None:
    assert_ended(lifetimes["message"], SESSION)


@pytest.mark.parametrize("hazard", ["silent handshake", "handshake"])
def test_a_handshake_that_stalls_is_closed_in_time(hazard: str, lifetimes: Lifetimes) -> None:
    assert_ended(lifetimes[hazard], HANDSHAKE)


def test_a_silent_client_is_let_go(lifetimes: Lifetimes) -> None:
    assert_ended(lifetimes["silence"], SESSION)
