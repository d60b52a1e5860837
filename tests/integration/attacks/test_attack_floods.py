"""Floods and stalls: bounded time, bounded memory, and afterwards everything as before."""

import ssl
import threading
import time
from collections.abc import Iterator

import pytest
from harness import wait
from harness.appliance import Appliance, Process
from harness.clients import Account, Endpoint
from harness.dialogue import Dialogue

SERVICES = ("mx", "submission", "submissions", "pop3", "pop3s")
PLAIN = ("mx", "submission", "pop3")


def cpu_seconds(process: Process) -> float:
    """Return the CPU time that a process has used, in seconds."""
    fields = (process.folder / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def resident(process: Process) -> int:
    """Return the resident memory of a process, in bytes."""
    return int((process.folder / "statm").read_text().split()[1]) * 4096


def family(appliance: Appliance, service: str) -> list[Process]:
    """Return all processes of a service, the one that serves a connection among them."""
    found = [p for p in appliance.processes_of(service) if p.alive()]
    assert found
    return found


def used(processes: list[Process]) -> float:
    """Return the CPU time that processes have used, in seconds."""
    return sum(cpu_seconds(p) for p in processes if p.alive())


def held(processes: list[Process]) -> dict[Process, int]:
    """Return the resident memory of each process, in bytes."""
    return {p: resident(p) for p in processes if p.alive()}


def growth(before: dict[Process, int]) -> int:
    """Return by how much those processes have grown that are still there, in bytes."""
    return sum(now - before[p] for p, now in held([*before]).items())


@pytest.fixture(scope="module")
def user(appliance: Appliance) -> Account:
    """Who logs in."""
    return appliance.add_account()


@pytest.mark.parametrize("service", SERVICES)
def test_a_partial_line_costs_no_cpu(service: str, appliance: Appliance, at: Endpoint) -> None:
    with Dialogue(at, service) as dialogue:
        dialogue.send(b"EHL")
        time.sleep(0.3)
        waiting = family(appliance, service)
        before = used(waiting)
        time.sleep(2)
        assert used(waiting) - before <= 0.05


@pytest.mark.parametrize("service", SERVICES)
def test_a_line_without_end_is_cut_and_costs_no_memory(
    service: str, appliance: Appliance, at: Endpoint
) -> None:
    with Dialogue(at, service) as dialogue:
        small = held(family(appliance, service))
        sent = peak = 0
        try:
            while sent < 100_000_000:
                dialogue.send(b"x" * 1_000_000)
                sent += 1_000_000
                if sent % 10_000_000 == 0:
                    peak = max(peak, growth(small))
        except OSError:
            pass  # cut off: that is what should happen
        assert sent < 100_000_000
        assert peak < 20_000_000


def session(at: Endpoint, kind: str, account: Account) -> Dialogue:
    """Return a dialogue of a kind such as ``mx in TLS`` or ``pop3 after AUTH``."""
    service, *state = kind.split(" ", 1)
    dialogue = Dialogue(at, service)
    if state and service in PLAIN:
        if not dialogue.pop3:
            dialogue.say(b"EHLO client.example")
        dialogue.start_tls()
    if state == ["after AUTH"]:
        dialogue.log_in(account)
    elif not dialogue.pop3:
        dialogue.say(b"EHLO client.example")
    return dialogue


BEFORE_AUTH = ["mx", "mx in TLS", "submission", "submissions", "pop3", "pop3s"]
AFTER_AUTH = ["submission after AUTH", "submissions after AUTH", "pop3s after AUTH"]


@pytest.fixture
def talk(request: pytest.FixtureRequest, at: Endpoint, user: Account) -> Iterator[Dialogue]:
    """A dialogue of the kind that the test is for."""
    with session(at, request.param, user) as dialogue:
        yield dialogue


@pytest.mark.parametrize("talk", BEFORE_AUTH + AFTER_AUTH, indirect=True)
def test_a_line_that_is_too_long_gets_its_reply(talk: Dialogue) -> None:
    talk.send(b"NOOP " + b"x" * 5000 + b"\r\n")
    wanted = b"-ERR line too long" if talk.pop3 else b"500 line too long (#5.5.2)"
    assert talk.reply() == [wanted]
    assert talk.rest() == b""


@pytest.mark.parametrize("talk", BEFORE_AUTH + AFTER_AUTH, indirect=True)
def test_ten_thousand_noops_are_all_answered(talk: Dialogue) -> None:
    for _ in range(100):
        talk.send(b"NOOP\r\n" * 100)
        assert {line[:4] for line in talk.lines(100)} <= {b"250 ", b"+OK "}


@pytest.mark.parametrize("talk", ["mx", "mx in TLS", *AFTER_AUTH], indirect=True)
def test_sixty_thousand_pipelined_rsets_are_all_answered(talk: Dialogue) -> None:
    # The writer must not wait for the reader: a client that does would stop itself. TLS
    # has no such writer in Python, so there it is done in portions.
    portion = 500 if isinstance(talk.socket, ssl.SSLSocket) else 60_000
    good, bye = (b"+OK ", b"+OK") if talk.pop3 else (b"250 ", b"221")
    for _ in range(60_000 // portion):
        flood = threading.Thread(target=talk.send, args=(b"RSET\r\n" * portion,), daemon=True)
        flood.start()
        if portion < 60_000:
            flood.join(30)
        assert {line[:4] for line in talk.lines(portion)} == {good}
        flood.join(30)
    assert talk.code(b"QUIT") == bye
    assert talk.rest() == b""


def test_a_client_that_does_not_read_is_held_up_not_buffered(
    appliance: Appliance, at: Endpoint
) -> None:
    with Dialogue(at, "mx") as dialogue:
        dialogue.say(b"EHLO client.example")
        small = held(family(appliance, "mx"))
        dialogue.socket.settimeout(1.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 50_000_000:
                sent += dialogue.socket.send(b"HELP\r\n" * 10_000)
        waiting = family(appliance, "mx")

        def idle() -> bool:
            before = used(waiting)
            time.sleep(1)
            return used(waiting) - before <= 0.05

        # What the kernel's buffers hold may still be worked off; then nothing moves.
        wait.until("the server to stand still", idle)
        assert growth(small) < 20_000_000


@pytest.mark.parametrize("talk", ["mx", "mx in TLS", *AFTER_AUTH[:2]], indirect=True)
def test_a_thousand_recipients_are_taken(talk: Dialogue, user: Account) -> None:
    assert talk.code(b"MAIL FROM:<" + user.address.encode() + b">") == b"250"
    for _ in range(10):
        talk.send(b"RCPT TO:<postmaster@example.test>\r\n" * 100)
        assert {line[:4] for line in talk.lines(100)} == {b"250 "}
    assert talk.code(b"RSET") == b"250"


# What a message may consist of to be a burden, and what it may cost while it comes in. A
# header is held until it is whole, or too big: of the shortest fields that takes the most.
BURDENS = {
    "a line without end": (b"x" * 1_000_000, 100, 20_000_000),
    "short lines": (b"\r\n" + b"x\r\n" * 300_000, 20, 20_000_000),
    "short fields": (b"a: b\r\n" * 150_000, 20, 60_000_000),
}


@pytest.mark.parametrize(
    ("burden", "talk"),
    [
        ("a line without end", "mx"),
        ("a line without end", "mx in TLS"),
        ("a line without end", "submission after AUTH"),
        ("a line without end", "submissions after AUTH"),
        ("short lines", "mx"),
        ("short lines", "submissions after AUTH"),
        ("short fields", "mx"),
        ("short fields", "submissions after AUTH"),
    ],
    indirect=["talk"],
)
def test_a_message_of_any_size_costs_no_memory(
    burden: str,
    talk: Dialogue,
    appliance: Appliance,
    user: Account,
    request: pytest.FixtureRequest,
) -> None:
    service = request.node.callspec.params["talk"].split()[0]
    chunk, times, limit = BURDENS[burden]
    address = user.address.encode()
    assert talk.code(b"MAIL FROM:<" + address + b">") == b"250"
    assert talk.code(b"RCPT TO:<" + address + b">") == b"250"
    assert talk.code(b"DATA") == b"354"
    talk.send(b"From: <" + address + b">\r\n")
    small, peak = held(family(appliance, service)), 0
    for sent in range(1, times + 1):
        talk.send(chunk)
        if sent % (times // 5) == 0:
            peak = max(peak, growth(small))
    assert peak < limit
    if burden == "a line without end":  # more than the 50 MB of databytes
        talk.send(b"\r\n.\r\n")
        assert talk.reply()[-1][:3] == b"552"
        assert talk.code(b"NOOP") == b"250"


@pytest.mark.parametrize("service", PLAIN)
def test_one_who_talks_before_the_banner_is_answered_in_order(service: str, at: Endpoint) -> None:
    with Dialogue(at, service, greet=False) as dialogue:
        dialogue.send(b"NOOP\r\nQUIT\r\n")
        answer = dialogue.rest()
        assert answer.startswith((b"220 ", b"+OK "))
        assert answer.count(b"\r\n") == 3


@pytest.mark.parametrize("service", SERVICES)
def test_more_connections_than_the_limit_are_refused_and_then_it_recovers(
    service: str, appliance: Appliance, at: Endpoint
) -> None:
    limit = 60
    held: list[Dialogue] = []
    refused = 0
    try:
        for _ in range(limit + 10):
            try:
                dialogue = Dialogue(at, service)
            except OSError:
                refused += 1
                continue
            held.append(dialogue)
            if not dialogue.greeting or dialogue.greeting[0][:1] in (b"4", b"-"):
                refused += 1
        assert refused >= 9
        assert len(held) - refused <= limit
        assert appliance.healthy()  # whoever restarts what is not would help the flooder
    finally:
        for dialogue in held:
            dialogue.socket.close()

    def served() -> bool:
        try:
            with Dialogue(at, service) as dialogue:
                return dialogue.greeting[0][:3] in (b"220", b"+OK")
        except (OSError, IndexError):
            return False

    wait.until("room for a connection", served)


def test_everything_is_well_after_the_floods(appliance: Appliance) -> None:
    appliance.wait_healthy()
    wait.until(
        "the end of all sessions",
        lambda: len(appliance.processes_of("mx")) < 8,
        seconds=60,
    )
