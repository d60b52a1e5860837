"""Kill anything: it comes back, and no mail that was answered with 250 is lost."""

import os
import signal
import smtplib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import mail, wait
from harness.appliance import Appliance
from harness.clients import FETCHERS, Account, Endpoint, trusting_context

SERVICES = (
    "mx",
    "submission",
    "submissions",
    "pop3",
    "pop3s",
    "queue",
    "queue-server",
    "checkpasswordd",
    "authguardd",
)

LOGGER = ["s6-log", "-b", "pmx:"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_service_comes_back(service: str, appliance: Appliance) -> None:
    victim = appliance.processes_of(service)[0]
    os.kill(victim.pid, signal.SIGKILL)
    wait.until(f"the end of {victim}", lambda: not victim.alive())
    appliance.wait_healthy()
    assert appliance.processes_of(service)[0].pid != victim.pid


def test_a_killed_tls_zygote_comes_back(appliance: Appliance, at: Endpoint) -> None:
    tls = [p for p in appliance.processes_of("mx") if p.uid == 7801]
    assert tls
    os.kill(tls[0].pid, signal.SIGKILL)
    wait.until("the end of the TLS zygote", lambda: not tls[0].alive())

    def starts_tls() -> bool:
        try:
            with smtplib.SMTP(at.host, at.ports["mx"], timeout=10) as client:
                client.starttls(context=trusting_context())
                return client.ehlo()[0] == 250
        except (smtplib.SMTPException, OSError):
            return False

    wait.until("TLS after the zygote's death", starts_tls)


def busy(appliance: Appliance) -> set[int]:
    """Return the processes that serve a client of mx now; others wait for the next one."""
    found = set()
    for process in appliance.processes_of("mx"):
        try:
            if os.readlink(process.folder / "fd" / "0").startswith("socket:"):
                found.add(process.pid)
        except FileNotFoundError:
            pass  # it has ended
    return found


def test_other_sessions_live_on_when_one_process_is_killed(
    appliance: Appliance, at: Endpoint
) -> None:
    with smtplib.SMTP(at.host, at.ports["mx"], timeout=30) as survivor:
        survivor.ehlo()
        spared = busy(appliance)
        with smtplib.SMTP(at.host, at.ports["mx"], timeout=30) as victim:
            victim.ehlo()
            for pid in busy(appliance) - spared:
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(smtplib.SMTPException):
                victim.docmd("NOOP")
            victim.close()
        assert survivor.noop()[0] == 250


class Sender(threading.Thread):
    """Sends small messages to one account until told to stop, and notes which were accepted."""

    def __init__(self, at: Callable[[], Endpoint], to: Account) -> None:
        super().__init__(daemon=True)
        self._at, self._to = at, to
        self.accepted: list[str] = []
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set() and len(self.accepted) < 400:
            message = mail.compose("someone@outside.example", self._to.address)
            try:
                at = self._at()
                with smtplib.SMTP(at.host, at.ports["mx"], timeout=30) as client:
                    client.sendmail("someone@outside.example", [self._to.address], message.raw)
                    self.accepted.append(message.token)
            except (smtplib.SMTPException, OSError, KeyError):
                self.enough.wait(0.05)


def tokens(at: Endpoint, account: Account, scratch: Path) -> list[str]:
    """Return the tokens of the messages in a mailbox."""
    found = FETCHERS["poplib-implicit"](at, account, scratch)
    return [mail.header(raw, "Subject")[0].split()[-1].decode() for raw in found]


def test_no_accepted_mail_is_lost_when_processes_are_killed(
    appliance: Appliance, account: Account, tmp_path: Path
) -> None:
    sender = Sender(lambda: appliance.endpoint, account)
    sender.start()
    for _ in range(2):
        for service in ("queue", "queue-server", "mx"):
            # Every process of the service, in the middle of whatever it does.
            reached = len(sender.accepted) + 3
            wait.until(
                "three more messages",
                lambda reached=reached: len(sender.accepted) >= reached,  # type: ignore[misc]
                seconds=60,
            )
            for process in appliance.processes_of(service):
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
    sender.enough.set()
    sender.join(60)
    appliance.wait_healthy()
    at = appliance.endpoint
    # A delivery that was cut off is tried again after its first retry; SIGALRM asks for it now.
    queue = "/run/postern/service/queue"

    def all_there() -> bool:
        appliance.run(["s6-svc", "-a", queue])
        return set(sender.accepted) <= set(tokens(at, account, tmp_path))

    wait.until("every accepted message", all_there, seconds=90)


def test_a_stop_loses_nothing_and_is_quick(appliance: Appliance, tmp_path: Path) -> None:
    account = appliance.add_account()
    sender = Sender(lambda: appliance.endpoint, account)
    sender.start()
    wait.until("ten messages", lambda: len(sender.accepted) >= 10, seconds=60)
    appliance.container.stop(timeout=30)
    sender.enough.set()
    sender.join(60)
    appliance.container.reload()
    status, log = appliance.container.attrs["State"]["ExitCode"], appliance.logs(tail=30)
    appliance.container.start()
    appliance.wait_healthy()
    assert status == 0, log
    at = appliance.endpoint
    wait.until(
        "every accepted message",
        lambda: set(sender.accepted) <= set(tokens(at, account, tmp_path)),
        seconds=60,
    )


def test_a_process_that_holds_a_log_open_does_not_hold_up_the_stop(appliance: Appliance) -> None:
    (logger,) = [p for p in appliance.processes() if p.command.split()[:3] == LOGGER]
    held = os.open(logger.folder / "fd" / "0", os.O_WRONLY)
    try:
        appliance.container.stop(timeout=30)
    finally:
        os.close(held)
    appliance.container.reload()
    status = appliance.container.attrs["State"]["ExitCode"]
    appliance.container.start()
    appliance.wait_healthy()
    assert status == 0


def test_a_hard_stop_of_the_whole_container_loses_nothing(
    appliance: Appliance, tmp_path: Path
) -> None:
    account = appliance.add_account()
    sender = Sender(lambda: appliance.endpoint, account)
    sender.start()
    wait.until("ten messages", lambda: len(sender.accepted) >= 10, seconds=60)
    appliance.container.kill()
    sender.enough.set()
    sender.join(60)
    appliance.container.start()
    appliance.wait_healthy()
    at = appliance.endpoint

    def all_there() -> bool:
        appliance.run(["s6-svc", "-a", "/run/postern/service/queue"])
        return set(sender.accepted) <= set(tokens(at, account, tmp_path))

    wait.until("every accepted message", all_there, seconds=90)
