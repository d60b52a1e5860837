"""forward: in a .qmail file, pass the message on (forward(1)).

    |forward address ...

The envelope sender is NEWSENDER; the message gets the line in DTLINE in front. For
recipients elsewhere SRS_SENDER may take the sender's place, see `forwarding`.
"""

import os
import sys

from pyqmail.local import forwarding
from pyqmail.queue import client, errors
from pyqmail.queue.errors import Result
from ucspi import control

MESSAGE = 0  # the descriptor
CHUNK = 65536


def main(argv: list[str], env: dict[str, str]) -> int:
    """Queue the message on descriptor 0 for the addresses.

    Returns:
        0 queued; 100 refused for good, or not run from a .qmail file; 111 try again.
    """
    for name in ("NEWSENDER", "DTLINE"):
        if name not in env:
            return say(100, f"forward: fatal: {name} not set")
    try:
        results = queue(env, env["NEWSENDER"], argv[1:])
    except OSError as error:
        return say(111, f"forward: fatal: unable to read message: {error.strerror}")
    except control.ControlError as error:
        return say(111, f"forward: fatal: {error}")
    return report("forward", results, 0)


def queue(env: dict[str, str], sender: str, recipients: list[str]) -> list[Result]:
    """Queue the message on descriptor 0, with the Delivered-To line in front.

    Returns:
        What became of it, once for each envelope, up to the first that was refused.

    Raises:
        OSError: the message cannot be read; nothing is queued.
        ControlError: see `forwarding.envelopes`.
    """
    here = os.fsencode(sender)
    original = os.fsencode(env.get("SENDER", ""))
    wanted = [os.fsencode(word) for word in recipients]
    envelopes = forwarding.envelopes(here, original, wanted, env)
    injections = [client.open_queue(env) for _ in envelopes]
    try:
        for injection in injections:
            injection.write(os.fsencode(env["DTLINE"]))
        while chunk := os.read(MESSAGE, CHUNK):
            for injection in injections:
                injection.write(chunk)
    except OSError:
        for injection in injections:
            injection.abort()
        raise
    results: list[Result] = []
    for injection, envelope in zip(injections, envelopes, strict=True):
        if results and results[-1].status:
            injection.abort()
        else:
            results.append(injection.finish(*envelope))
    return results


def report(name: str, results: list[Result], status: int) -> int:
    """Say what became of a message, and return the exit status: status if it is queued."""
    text = errors.text_for(results[-1])
    if text:
        explanation = os.fsdecode(text[1:])
        return say(100 if text.startswith(b"D") else 111, f"{name}: fatal: {explanation}")
    for result in results:
        say(status, f"{name}: qp {result.pid}")
    return status


def say(status: int, text: str) -> int:
    """Write a line to descriptor 2 and return the status."""
    sys.stderr.write(text + "\n")
    return status
