"""Mail from several clients, while processes and the container are killed at random.

What was answered with 250 is in the mailbox, and what is there is what was sent. The seed
is printed with a failure; CHAOS_SEED repeats the choice of victims, though not the timing.
"""

import os
import random
import signal
import smtplib
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from harness import mail, wait
from harness.another import another
from harness.appliance import Appliance
from harness.clients import FETCHERS, Account, Endpoint, trusting_context

BLOWS = 12
HARD_BLOWS = 2  # of them: the whole container
SENDERS = 3
ENOUGH = 240  # messages, or the mailbox takes too long to be looked at again and again
SERVICES = ("mx", "submissions", "queue", "queue", "queue-server", "queue-server")
OUTSIDE = "someone@outside.example"


class Sender(threading.Thread):
    """Sends one message after the other, half of them with a login, and notes what is accepted."""

    def __init__(self, at: Callable[[], Endpoint], to: Account, number: int) -> None:
        """Send to an account, whose password is used for submission, too."""
        super().__init__(daemon=True)
        self._at, self._to, self._number = at, to, number
        self.sent: dict[str, bytes] = {}
        self.accepted: list[str] = []
        self.enough = threading.Event()

    def run(self) -> None:
        """Send until it is enough."""
        while not self.enough.is_set() and len(self.accepted) < ENOUGH // SENDERS:
            submit = bool((len(self.sent) + self._number) % 2)
            sender = self._to.address if submit else OUTSIDE
            size = 60_000 if len(self.sent) % 5 == 4 else 0
            message = mail.compose(sender, self._to.address, size=size)
            self.sent[message.token] = message.body
            try:
                with self._connection(submit) as client:
                    client.sendmail(sender, [self._to.address], message.raw)
                    self.accepted.append(message.token)
            except (smtplib.SMTPException, OSError, KeyError):
                self.enough.wait(0.1)

    def _connection(self, submit: bool) -> smtplib.SMTP:
        at = self._at()
        if not submit:
            return smtplib.SMTP(at.host, at.ports["mx"], timeout=20)
        client = smtplib.SMTP_SSL(
            at.host, at.ports["submissions"], timeout=20, context=trusting_context()
        )
        client.login(*self._to)
        return client


def kill_something(running: Appliance, chance: random.Random) -> None:
    """Kill one process of a service, or all of them."""
    try:
        found = running.processes_of(chance.choice(SERVICES))
    except AssertionError:
        return  # between two starts of the container there is nobody
    chance.shuffle(found)
    for process in found[: chance.choice((1, 1, 2, len(found)))]:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_whatever_is_killed_no_accepted_mail_is_lost(appliance: Appliance, tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(1 << 32))
    print(f"CHAOS_SEED={seed}")
    chance = random.Random(seed)
    with another(appliance) as running:
        account = running.add_account()
        senders = [Sender(lambda: running.endpoint, account, n) for n in range(SENDERS)]
        for sender in senders:
            sender.start()
        hard = chance.sample(range(BLOWS), HARD_BLOWS)
        for blow in range(BLOWS):
            reached = accepted_by(senders) + chance.randint(1, 5)
            wait.until(
                f"mail between two blows (seed {seed})",
                lambda reached=reached: accepted_by(senders) >= reached,  # type: ignore[misc]
                seconds=60,
            )
            if blow in hard:
                running.container.kill()
                running.container.start()
            else:
                kill_something(running, chance)
        for sender in senders:
            sender.enough.set()
        for sender in senders:
            sender.join(60)
        running.wait_healthy()
        check(running, account, senders, tmp_path)


def accepted_by(senders: list[Sender]) -> int:
    """Return how many messages were accepted, of all senders."""
    return sum(len(sender.accepted) for sender in senders)


def check(running: Appliance, account: Account, senders: list[Sender], scratch: Path) -> None:
    """Wait until all that was accepted is there, and see that nothing else is."""
    sent = {token: body for sender in senders for token, body in sender.sent.items()}
    accepted = {token for sender in senders for token in sender.accepted}
    assert len(accepted) >= BLOWS
    at = running.endpoint

    def mailbox() -> list[bytes] | None:
        # A delivery that was cut off is tried again after its first retry, or when asked for.
        running.run(["s6-svc", "-a", "/run/postern/service/queue"])
        found = FETCHERS["poplib-implicit"](at, account, scratch)
        return found if accepted <= {token_of(raw) for raw in found} else None

    found = wait.until("every accepted message", mailbox, seconds=60)
    for raw in found:
        assert mail.body_of(raw) == sent[token_of(raw)]
    copies = Counter(map(token_of, found))
    assert sum(copies.values()) - len(copies) < len(accepted), copies


def token_of(raw: bytes) -> str:
    """Return what makes a message different from all others."""
    return mail.header(raw, "Subject")[0].split()[-1].decode()
