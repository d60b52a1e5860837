"""Guessing passwords: each guess is slower, many are refused, and nobody is locked out.

The appliance that the other tests share lets their network guess; these have their own.
"""

import base64
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import wait
from harness.another import another
from harness.appliance import Appliance
from harness.clients import Account, Endpoint
from harness.dialogue import Dialogue

WRONG = b"535 authup authorization failed (#5.7.0)"
POP3_WRONG = b"-ERR authup authorization failed"
GUESS = "hunter2-guessed"
GUESSES = 36  # more than the limit of 30

READ_EVENTS = """
import socket
events = socket.socket(socket.AF_UNIX)
events.connect("/run/postern/auth-events.sock")
with open("/tmp/events", "wb", buffering=0) as output:
    while data := events.recv(65536):
        output.write(data)
"""


@pytest.fixture
def guarded(appliance: Appliance) -> Iterator[Appliance]:
    """An appliance that has seen no login yet, and allows nobody to guess."""
    with another(appliance) as running:
        yield running


def submit(at: Endpoint, user: str, password: str) -> tuple[list[bytes], float]:
    """Try a password at port 465; return the reply and the seconds it took."""
    with Dialogue(at, "submissions") as dialogue:
        dialogue.say(b"EHLO client.example")
        began = time.monotonic()
        secret = base64.b64encode(f"\0{user}\0{password}".encode())
        return dialogue.say(b"AUTH PLAIN " + secret), time.monotonic() - began


def fetch(at: Endpoint, user: str, password: str) -> tuple[list[bytes], float]:
    """Try a password at port 995; return the reply and the seconds it took."""
    with Dialogue(at, "pop3s") as dialogue:
        dialogue.say(b"USER " + user.encode())
        began = time.monotonic()
        return dialogue.say(b"PASS " + password.encode()), time.monotonic() - began


def guess_at_many(at: Endpoint) -> None:
    """Guess once at each of many accounts, at the same time."""
    with ThreadPoolExecutor(GUESSES) as pool:
        users = [f"guess{number}@example.test" for number in range(GUESSES)]
        replies = list(pool.map(lambda user: fetch(at, user, GUESS)[0], users))
    assert replies == [[POP3_WRONG]] * GUESSES


def test_each_guess_is_slower_at_every_service(guarded: Appliance) -> None:
    at, account = guarded.endpoint, guarded.add_account()
    seconds = []
    for _ in range(2):
        for attempt, wrong in ((submit, WRONG), (fetch, POP3_WRONG)):
            reply, took = attempt(at, account.address, GUESS)
            assert reply == [wrong]
            seconds.append(took)
    assert seconds[2] >= 0.9
    assert seconds[3] >= 1.9
    # The right password waits for it too, is taken, and makes all be forgotten.
    reply, took = submit(at, account.address, account.password)
    assert (reply[-1][:3], took >= 3.9) == (b"235", True)
    reply, took = fetch(at, account.address, account.password)
    assert (reply[0][:3], took < 3.9) == (b"+OK", True)


def test_beyond_the_limit_a_right_password_is_refused_too(guarded: Appliance) -> None:
    at, account = guarded.endpoint, guarded.add_account()
    guarded.container.exec_run(["python3", "-IS", "-c", READ_EVENTS], detach=True)
    wait.until("a reader", lambda: guarded.run(["cat", "/tmp/events"])[0] == 0)
    guess_at_many(at)
    assert fetch(at, account.address, account.password)[0] == [POP3_WRONG]
    assert submit(at, account.address, account.password)[0] == [WRONG]
    _, events = guarded.run(["cat", "/tmp/events"])
    assert events.count("outcome=failed") >= 30
    for service in ("pop3", "submission"):
        refused = [line for line in events.splitlines() if line.endswith("outcome=refused")]
        assert [line for line in refused if f" service={service} ip=" in line]
        assert [line for line in refused if f" account={account.address} " in line]
    log = guarded.logs()
    assert "too many failures: refused from now on" in log
    assert "this attempt is refused" in log
    for secret in (GUESS, account.password):
        assert secret not in events
        assert secret not in log


def test_a_gateway_with_a_guesser_behind_it_shuts_nobody_out(guarded: Appliance) -> None:
    at, account = guarded.endpoint, guarded.add_account()
    newcomer = guarded.add_account()
    assert login(at, account)
    guess_at_many(at)
    assert login(at, account)
    assert login(at, newcomer)


def login(at: Endpoint, account: Account) -> bool:
    """Say whether the account's own password is taken."""
    return submit(at, account.address, account.password)[0][-1][:3] == b"235"


def test_without_the_guard_there_is_mail(guarded: Appliance) -> None:
    stop = ["s6-svc", "-wd", "-d", "/run/postern/service/authguardd"]
    assert guarded.run(stop)[0] == 0
    assert login(guarded.endpoint, guarded.add_account())
    assert "this attempt is not guarded" in guarded.logs()
