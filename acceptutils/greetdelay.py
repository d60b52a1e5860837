"""greetdelay: let the client wait for its greeting, and refuse one that cannot.

greetdelay prog [ args ... ]

GREETDELAY is the number of seconds. SMTP clients wait to be greeted (RFC 5321, 3.1);
programs that only send spam often do not.
"""

import os
import select
import time

from acceptutils.fixsmtpio.client import Client
from acceptutils.server.addresses import Network, plain
from ucspi import chain, log

NAME = "greetdelay"
EXIT_USAGE = 100
EXIT_EARLY = 111
EXIT_GONE = 1
MOST_SECONDS = 240.0  # clients wait for five minutes (RFC 5321, 4.5.3.2.1)

VIOLATION = b"554 smtp protocol violation (#5.5.1)\r\n"


def main(argv: list[str], env: dict[str, str]) -> int:
    """Become the rest of the command line when the client has waited in silence.

    Returns:
        111 for a client that spoke first, 1 for one that went away, 100 on misuse; else
        what the program returns.
    """
    if not argv[1:]:
        log.event(env, f"{NAME}: usage: {NAME} prog")
        return EXIT_USAGE
    delay = seconds(env)
    if delay > 0 and not is_exempt(env):
        poller = select.poll()
        poller.register(0, select.POLLIN)
        deadline = time.monotonic() + delay
        while (left := deadline - time.monotonic()) > 0:
            if poller.poll(left * 1000):
                return _refuse(env, delay - left)
    return chain.run(argv[1:], env)


def seconds(env: dict[str, str]) -> float:
    """Return the delay; 0 without one, and with a log line for what is none."""
    text = env.get("GREETDELAY", "")
    if not text:
        return 0.0
    whole, _, fraction = text.partition(".")
    if not (text.isascii() and whole.isdigit() and (fraction or "0").isdigit()):
        log.event(env, f"{NAME}: not a number of seconds: {text[:40]}")
        return 0.0
    return min(float(text), MOST_SECONDS)


def is_exempt(env: dict[str, str]) -> bool:
    """Whether the client need not wait: it may relay, or is of a network in GREETDELAY_ALLOW."""
    if "RELAYCLIENT" in env:
        return True
    address = plain(env.get("TCPREMOTEIP", ""))
    for block in env.get("GREETDELAY_ALLOW", "").replace(",", " ").split():
        try:
            if address in Network(block):
                return True
        except ValueError as error:
            log.event(env, f"{NAME}: {error}")
    return False


def _refuse(env: dict[str, str], waited: float) -> int:
    """Refuse the client on descriptors 0 and 1, which has said something or gone away."""
    client = Client()
    try:
        said = client.read()
        if not said:
            log.event(env, f"{NAME} {os.getpid()} client gone after {waited:.1f} seconds")
            return EXIT_GONE
        # Not a word of what it said: it may be anything.
        log.event(env, f"{NAME} {os.getpid()} client spoke first, after {waited:.1f} seconds")
        client.write(VIOLATION)
        client.linger()
    except OSError:
        pass  # gone
    finally:
        client.release()
    return EXIT_EARLY
