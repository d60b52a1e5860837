"""Floods and stalls: bounded time, bounded memory, and afterwards everything as before."""

import time

import pytest
from harness import wait
from harness.appliance import Appliance, Process
from harness.clients import Endpoint
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


def newcomers(appliance: Appliance, before: set[int]) -> list[Process]:
    """Return the processes that were not there before."""
    return [p for p in appliance.processes() if p.pid not in before and p.command]


@pytest.fixture
def before(appliance: Appliance) -> set[int]:
    """The processes from before the test."""
    return {process.pid for process in appliance.processes()}


@pytest.mark.parametrize("service", SERVICES)
def test_a_partial_line_costs_no_cpu(
    service: str, appliance: Appliance, at: Endpoint, before: set[int]
) -> None:
    with Dialogue(at, service) as dialogue:
        dialogue.send(b"EHL")
        time.sleep(0.3)
        waiting = newcomers(appliance, before)
        assert waiting
        used = sum(map(cpu_seconds, waiting))
        time.sleep(2)
        assert sum(map(cpu_seconds, waiting)) - used <= 0.05


@pytest.mark.parametrize("service", SERVICES)
def test_a_line_without_end_is_cut_and_costs_no_memory(
    service: str, appliance: Appliance, at: Endpoint, before: set[int]
) -> None:
    with Dialogue(at, service) as dialogue:
        small = sum(map(resident, newcomers(appliance, before)))
        sent = 0
        peak = small
        try:
            while sent < 100_000_000:
                dialogue.send(b"x" * 1_000_000)
                sent += 1_000_000
                if sent % 10_000_000 == 0:
                    peak = max(peak, sum(map(resident, newcomers(appliance, before))))
        except OSError:
            pass  # cut off: that is what should happen
        assert sent < 100_000_000
        assert peak - small < 20_000_000


@pytest.mark.parametrize("service", ["mx", "submissions", "pop3s"])
def test_a_line_that_is_too_long_gets_its_reply(service: str, at: Endpoint) -> None:
    with Dialogue(at, service) as dialogue:
        dialogue.send(b"NOOP " + b"x" * 5000 + b"\r\n")
        wanted = b"-ERR line too long" if service == "pop3s" else b"500 line too long (#5.5.2)"
        assert dialogue.reply() == [wanted]
        assert dialogue.rest() == b""


@pytest.mark.parametrize("service", ["mx", "submissions", "pop3s"])
def test_ten_thousand_noops_are_all_answered(service: str, at: Endpoint) -> None:
    with Dialogue(at, service) as dialogue:
        answered = 0
        for _ in range(100):
            dialogue.send(b"NOOP\r\n" * 100)
            for _ in range(100):
                assert dialogue.reply()[0][:3] in (b"250", b"+OK", b"-ER")
                answered += 1
        assert answered == 10_000


def test_sixty_thousand_pipelined_rsets_are_all_answered(at: Endpoint) -> None:
    import threading

    with Dialogue(at, "mx") as dialogue:
        dialogue.say(b"EHLO client.example")
        # The writer must not wait for the reader: a client that does would stop itself.
        flood = threading.Thread(
            target=dialogue.send, args=(b"RSET\r\n" * 60_000 + b"QUIT\r\n",), daemon=True
        )
        flood.start()
        answer = dialogue.rest()
        flood.join(30)
    assert answer.count(b"250 ") == 60_000
    assert answer.count(b"221 ") == 1


def test_a_client_that_does_not_read_is_held_up_not_buffered(
    appliance: Appliance, at: Endpoint, before: set[int]
) -> None:
    with Dialogue(at, "mx") as dialogue:
        dialogue.say(b"EHLO client.example")
        small = sum(map(resident, newcomers(appliance, before)))
        dialogue.socket.settimeout(1.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 50_000_000:
                sent += dialogue.socket.send(b"HELP\r\n" * 10_000)
        waiting = newcomers(appliance, before)

        def idle() -> bool:
            used = sum(map(cpu_seconds, waiting))
            time.sleep(1)
            return sum(map(cpu_seconds, waiting)) - used <= 0.05

        # What the kernel's buffers hold may still be worked off; then nothing moves.
        wait.until("the server to stand still", idle)
        assert sum(map(resident, waiting)) - small < 20_000_000


def test_a_thousand_recipients_are_taken(at: Endpoint) -> None:
    with Dialogue(at, "mx") as dialogue:
        dialogue.say(b"EHLO client.example")
        assert dialogue.code(b"MAIL FROM:<a@outside.example>") == b"250"
        for _ in range(10):
            dialogue.send(b"RCPT TO:<postmaster@example.test>\r\n" * 100)
            for _ in range(100):
                assert dialogue.reply()[0][:3] in (b"250", b"452")
        assert dialogue.code(b"RSET") == b"250"


@pytest.mark.parametrize("service", PLAIN)
def test_one_who_talks_before_the_banner_is_answered_in_order(service: str, at: Endpoint) -> None:
    with Dialogue(at, service, greet=False) as dialogue:
        dialogue.send(b"NOOP\r\nQUIT\r\n")
        answer = dialogue.rest()
        assert answer.startswith((b"220 ", b"+OK "))
        assert answer.count(b"\r\n") == 3


@pytest.mark.parametrize("service", ["mx", "pop3s"])
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
