"""The control files that fixsmtpio reads, kept between forks.

A server that forks a process per connection loads them once, before the first fork; each
process then only looks (stat) whether they are still the same.
"""

import os
from typing import NamedTuple

from acceptutils.fixsmtpio import rules
from ucspi import control

RULES = "fixsmtpio"
GREETINGS = ("smtpgreeting", "me")
TIMEOUT = "timeoutsmtpd"
TIMEOUT_SECONDS = 1200

_Signature = tuple[tuple[int, int, int, int] | None, ...]


class Settings(NamedTuple):
    """What the control files say."""

    rules: rules.Rules
    greeting: bytes
    timeout: int  # seconds


_kept: tuple[str, _Signature, Settings] | None = None


def load(env: dict[str, str]) -> Settings:
    """Return the settings of the qmail home, which is the current directory.

    Raises:
        RuleError: control/fixsmtpio does not parse.
        ControlError: a control file cannot be read, or a fixup needs our host name and
            neither smtpgreeting nor me is there.
    """
    global _kept
    home = env.get("QMAIL_HOME", control.QMAIL_HOME)
    signature = _signature()
    if _kept and _kept[:2] == (home, signature):
        return _kept[2]
    settings = _read()
    _kept = (home, signature, settings)
    return settings


def _signature() -> _Signature:
    found: list[tuple[int, int, int, int] | None] = []
    for name in (RULES, *GREETINGS, TIMEOUT):
        try:
            status = os.stat("control/" + name)
            found.append((status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev))
        except OSError:
            found.append(None)
    return tuple(found)


def _read() -> Settings:
    # No rule file is an empty one: the server is then left as it is.
    parsed = rules.parse(control.read_file(RULES) or b"")
    greeting = None
    for name in GREETINGS:
        if greeting := control.read_line(name):
            break
    if not greeting and parsed.need_greeting():
        raise control.ControlError("control/smtpgreeting and control/me: neither exists")
    host = (greeting or b"").replace(b"\r", b"").replace(b"\0", b"")
    timeout = max(1, control.read_number(TIMEOUT, TIMEOUT_SECONDS))  # as qmail-smtpd takes 0
    return Settings(parsed, host, timeout)
