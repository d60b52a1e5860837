"""What a logger does for metrics: count the lines that pass, and publish the counts.

`Tally` reads lines, and knows no file and no clock. A line's beginning is a program's own
words, and nothing that a client says comes before them; so patterns are anchored there.
`Publisher` puts the counts into a file, which is replaced as a whole, at most once a second.
"""

import os
import re
import select
import time
from collections.abc import Callable

from appliance import metrics_table
from appliance.layout import ALIAS, FIRST_ACCOUNT_UID, QMAILD, QMAILS

INTERVAL = 1.0  # seconds from one publication to the next
# To be woken costs more than a line does. After each read, lines gather for so long; the
# pipe holds hundreds of them, so nobody waits who writes them.
GATHERING = 0.01  # seconds
RUNNING_LIMIT = 1024  # deliveries whose channel is remembered; qmail-send has at most 240
FILE_LIMIT = 16384  # bytes
END = b"end\n"

Key = tuple[str, ...]

_NUMBER = rb"(\d{1,15})"
_CODES = {
    b"5.1.1": "no_mailbox",
    b"5.7.1": "relay",
    b"5.5.4": "syntax",
}
_SOURCES = {0: "root", QMAILD.uid: "mx", ALIAS.uid: "alias", QMAILS.uid: "bounce"}


class Tally:
    """The counts of one service."""

    def __init__(self, service: str) -> None:
        """Begin with nothing counted."""
        self.values = metrics_table.samples(service)
        self._running: dict[bytes, str] = {}  # channel by delivery

    def line(self, line: bytes) -> bool:
        """Count one line of the log; return whether it was one that counts."""
        for pattern, count in _RULES.get(line[: line.find(b" ")], ()):
            if found := pattern.match(line):
                count(self, found)
                return True
        return False

    def add(self, *key: str, by: int = 1) -> None:
        """Add to a counter that this service has."""
        if key in self.values:
            self.values[key] += by

    def put(self, value: int, *key: str) -> None:
        """Set a gauge that this service has."""
        if key in self.values:
            self.values[key] = value

    # What the rules call, with what their patterns found.

    def accepted(self, found: re.Match[bytes]) -> None:
        self.add("connections_accepted")
        self.put(int(found[1]), "connections")
        self.put(int(found[2]), "connections_limit")

    def ended(self, found: re.Match[bytes]) -> None:
        if self.values.get(("connections",)):
            self.add("connections", by=-1)

    def refused(self, found: re.Match[bytes]) -> None:
        reason = "address_limit" if found[2] else "limit"
        self.add("connections_refused", reason, by=int(found[1]))

    def reloaded(self, found: re.Match[bytes]) -> None:
        self.add("tls_reloads")
        self.put(1, "tls_last_reload_successful")

    def not_reloaded(self, found: re.Match[bytes]) -> None:
        self.add("tls_reload_failures")
        self.put(0, "tls_last_reload_successful")

    def tls_started(self, found: re.Match[bytes]) -> None:
        self.add("tls_sessions", found[1].decode())

    def login(self, found: re.Match[bytes]) -> None:
        self.add("logins", "success" if found[1] == b"succeeded" else "failure")

    def received(self, found: re.Match[bytes]) -> None:
        self.add("messages_received")
        if found[1]:
            self.add("message_received_bytes", by=int(found[1]))

    def recipient_refused(self, found: re.Match[bytes]) -> None:
        temporary = found[1] == b"4"
        reason = "temporary" if temporary else _CODES.get(found[2] or b"", "other")
        self.add("recipients_refused", reason)

    def queued(self, found: re.Match[bytes]) -> None:
        uid = int(found[2])
        source = "account" if uid >= FIRST_ACCOUNT_UID else _SOURCES.get(uid, "other")
        self.add("messages_queued", source)
        self.add("message_queued_bytes", by=int(found[1]))

    def delivery_started(self, found: re.Match[bytes]) -> None:
        if len(self._running) >= RUNNING_LIMIT:
            self._running.clear()
        self._running[found[1]] = found[2].decode()

    def delivery_ended(self, found: re.Match[bytes]) -> None:
        channel = self._running.pop(found[1], "unknown")
        self.add("deliveries", channel, found[2].decode())

    def status(self, found: re.Match[bytes]) -> None:
        local, local_limit, remote, remote_limit = map(int, found.groups())
        self.put(local, "deliveries_running", "local")
        self.put(local_limit, "deliveries_limit", "local")
        self.put(remote, "deliveries_running", "remote")
        self.put(remote_limit, "deliveries_limit", "remote")


Count = Callable[[Tally, re.Match[bytes]], None]
Rule = tuple[re.Pattern[bytes], Count]


def _add(*key: str) -> Count:
    return lambda tally, _: tally.add(*key)


def _kind(name: str) -> Count:
    return lambda tally, found: tally.add(name, "temporary" if found[1] == b"4" else "permanent")


def _rule(pattern: bytes, count: Count) -> Rule:
    return re.compile(pattern, re.DOTALL), count


# A refused command, what the client said in it, and our reply, the last thing on the line.
_REFUSED = rb"[\w-]+ \d+ refused %s.*: ([45])\d\d (?:.*\(#(\d\.\d\.\d)\))?"
_SMTP = (
    _rule(
        rb"[\w-]+ \d+ qp \d+ from <(?:.*> to \d+, " + _NUMBER + rb" bytes(?: ip=.*)?$)?",
        Tally.received,
    ),
    _rule(_REFUSED % b"(?i:rcpt)", Tally.recipient_refused),
    _rule(_REFUSED % b"(?i:mail)", _kind("senders_refused")),
    _rule(rb"[\w-]+ \d+ refused a message: ([45])\d\d ", _kind("messages_refused")),
)
# By the first word of a line.
_RULES: dict[bytes, tuple[Rule, ...]] = {
    b"acceptserver:": (
        _rule(
            rb"acceptserver: \d+ accept pid \d+ \(" + _NUMBER + b"/" + _NUMBER + rb"\)",
            Tally.accepted,
        ),
        _rule(rb"acceptserver: \d+ end pid ", Tally.ended),
        _rule(rb"acceptserver: TLS started: (TLSv1\.[23]) ", Tally.tls_started),
        _rule(rb"acceptserver: TLS handshake failed: ", _add("tls_handshake_failures")),
        _rule(
            rb"acceptserver: \d+ refuse " + _NUMBER + rb" \(limit of \d+ connections( per host)?\)",
            Tally.refused,
        ),
        _rule(rb"acceptserver: TLS: new certificate in use$", Tally.reloaded),
        _rule(
            rb"acceptserver: TLS: .*; (?:the certificate in use stays|no TLS for now)$",
            Tally.not_reloaded,
        ),
    ),
    b"authup": (
        _rule(rb"authup \d+ checkpassword \d+ attempt for ", _add("login_attempts")),
        _rule(rb"authup \d+ checkpassword \d+ (succeeded|failed),", Tally.login),
        _rule(rb"authup \d+ too many failures: this attempt is refused", _add("logins_refused")),
    ),
    b"rblsmtpd:": (
        _rule(rb"rblsmtpd: \S* pid \d+: [45]\d\d ", _add("connections_refused", "dnsbl")),
        _rule(rb"rblsmtpd: \S* pid \d+: unable to ask ", _add("dnsbl_failures")),
    ),
    b"greetdelay": (
        _rule(rb"greetdelay \d+ client spoke first, ", _add("connections_refused", "greet_delay")),
    ),
    b"qmail-smtpd": _SMTP,
    b"ofmipd": _SMTP,
    b"info": (
        _rule(
            rb"info msg \d+: bytes " + _NUMBER + rb" from <.*> qp \d+ uid (\d{1,10})$",
            Tally.queued,
        ),
    ),
    b"end": (_rule(rb"end msg \d", _add("messages_finished")),),
    b"starting": (
        _rule(rb"starting delivery (\d{1,15}): msg \d+ to (local|remote) ", Tally.delivery_started),
    ),
    b"delivery": (
        _rule(rb"delivery (\d{1,15}): (success|deferral|failure): ", Tally.delivery_ended),
    ),
    b"status:": (
        _rule(rb"status: local (\d{1,9})/(\d{1,9}) remote (\d{1,9})/(\d{1,9})", Tally.status),
    ),
    b"bounce": (_rule(rb"bounce msg \d+ qp ", _add("bounces")),),
    b"triple": (_rule(rb"triple bounce: discarding ", _add("bounces_discarded")),),
}


def encode(values: dict[Key, int]) -> bytes:
    """Return the file of counts: lines of a metric, its labels' values and the number."""
    lines = [f"{' '.join(key)} {value}\n".encode() for key, value in values.items()]
    return b"".join(lines) + END


def decode(content: bytes, service: str) -> dict[Key, int] | None:
    """Return the counts of a file; None for one that is not whole.

    Only what the service's logger may count is taken: whoever writes the file cannot
    make a new metric or label.
    """
    if not content.endswith(b"\n" + END):
        return None
    known = metrics_table.samples(service)
    found: dict[Key, int] = {}
    for line in content.decode("ascii", "replace").split("\n"):
        *words, number = line.split(" ")
        key = tuple(words)
        if key in known and number.isascii() and number.isdigit() and len(number) < 20:
            found[key] = int(number)
    return found


def read(path: str, service: str) -> dict[Key, int] | None:
    """Return the counts in the file at path; None when there are none to be had."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            return decode(file.read(FILE_LIMIT), service)
    except OSError:
        return None


class Publisher:
    """Counts what passes on one descriptor, and keeps a file of the counts up to date."""

    def __init__(self, service: str, path: str, descriptor: int) -> None:
        """Publish at path, from the start; descriptor is where the lines come from."""
        self._tally = Tally(service)
        self._path = path
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._due: float | None = None
        self._complained = False
        self._publish()

    def count(self, lines: list[bytes]) -> None:
        """Count lines, and publish when it is time."""
        if sum(map(self._tally.line, lines)) and self._due is None:
            self._due = time.monotonic() + INTERVAL
        elif self._due is not None and time.monotonic() >= self._due:
            self._publish()

    def wait(self) -> None:
        """Return when there is something to read; publish what waits for it meanwhile."""
        time.sleep(GATHERING)
        while self._due is not None:
            left = self._due - time.monotonic()
            if left > 0 and self._poll.poll(left * 1000):
                return
            if left <= 0:
                self._publish()

    def _publish(self) -> None:
        """Replace the file; a log that cannot be counted is still written."""
        self._due = None
        new = self._path + ".new"
        try:
            with open(new, "wb") as file:
                file.write(encode(self._tally.values))
            os.rename(new, self._path)
        except OSError as error:
            if not self._complained:
                self._complained = True
                os.write(2, f"metrics: {self._path}: {error.strerror}\n".encode())

    def close(self) -> None:
        """Publish what has not been."""
        if self._due is not None:
            self._publish()
