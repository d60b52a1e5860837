"""forward: in a .qmail file, pass the message on (forward(1)).

    |forward address ...

The envelope sender is NEWSENDER; the message gets the line in DTLINE in front.
"""

import os
import sys

from pyqmail.queue import client, errors
from pyqmail.queue.errors import Result

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
        result = queue(env, env["NEWSENDER"], argv[1:])
    except OSError as error:
        return say(111, f"forward: fatal: unable to read message: {error.strerror}")
    return failed("forward", result) or say(0, f"forward: qp {result.pid}")


def queue(env: dict[str, str], sender: str, recipients: list[str]) -> Result:
    """Queue the message on descriptor 0, with the Delivered-To line in front.

    Raises:
        OSError: the message cannot be read; nothing is queued.
    """
    injection = client.open_queue(env)
    injection.write(os.fsencode(env["DTLINE"]))
    try:
        while chunk := os.read(MESSAGE, CHUNK):
            injection.write(chunk)
    except OSError:
        injection.abort()
        raise
    return injection.finish(os.fsencode(sender), [os.fsencode(word) for word in recipients])


def failed(name: str, result: Result) -> int:
    """Say what is wrong with a message not queued, and return the exit status; 0: nothing."""
    text = errors.text_for(result)
    if not text:
        return 0
    explanation = os.fsdecode(text[1:])
    return say(100 if text.startswith(b"D") else 111, f"{name}: fatal: {explanation}")


def say(status: int, text: str) -> int:
    """Write a line to descriptor 2 and return the status."""
    sys.stderr.write(text + "\n")
    return status
