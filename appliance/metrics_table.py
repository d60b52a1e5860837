"""Every metric, in one table: what it is called, what it says, and where it comes from.

Those that the loggers count have a value for each combination of their labels from the
start, so that a rate is known from the first event on. No label ever holds what a client
said: all values that there can be are in this table, or are names of services.
"""

from collections.abc import Iterable, Iterator
from itertools import product
from typing import NamedTuple

LISTENERS = ("mx", "submission", "submissions", "pop3", "pop3s")
LOGINS = LISTENERS[1:]
RECEIVERS = LISTENERS[:3]
QUEUE = ("queue",)

LOG, QUEUE_DIRECTORY, SUPERVISOR, PROBE, VOLUME, PACKAGE = (
    *("the service's log", "the queue directory", "s6"),
    *("a connection to the service", "statvfs of /data", "the image"),
)

CHANNELS = ("local", "remote")
DURATION = ("temporary", "permanent")


class Label(NamedTuple):
    """A label beside service, and its values; some are those of the service mx alone."""

    name: str
    values: tuple[str, ...]
    of_mx: tuple[str, ...] = ()


class Metric(NamedTuple):
    """A metric; the name of a counter is without ``_total``."""

    name: str
    kind: str  # counter, gauge or info
    help: str
    source: str
    services: tuple[str, ...] = ()  # those that have it; only (): no label of that name
    labels: tuple[Label, ...] = ()
    initial: int = 0
    by_service: bool = True

    @property
    def full_name(self) -> str:
        """What Prometheus calls it."""
        suffix = {"counter": "_total", "info": "_info"}.get(self.kind, "")
        return f"postern_{self.name}{suffix}"

    @property
    def label_names(self) -> list[str]:
        """Its labels."""
        return ["service"] * self.by_service + [label.name for label in self.labels]

    def combinations(self, service: str) -> Iterator[tuple[str, ...]]:
        """Return every combination of values of the labels beside service."""
        mx = service == "mx"
        return product(*(label.values + (label.of_mx if mx else ()) for label in self.labels))


def _counted(
    name: str, services: tuple[str, ...], text: str, *labels: Label, kind: str = "counter"
) -> Metric:
    return Metric(name, kind, text, LOG, services, labels, by_service=services != QUEUE)


METRICS: tuple[Metric, ...] = (
    _counted("connections_accepted", LISTENERS, "Connections that were given a process."),
    _counted(
        "connections_refused",
        LISTENERS,
        "Connections that were refused: beyond the limit of all or of one address, by a list in "
        "the DNS, or for speaking before the greeting.",
        Label("reason", ("limit", "address_limit"), ("dnsbl", "greet_delay")),
    ),
    _counted(
        "dnsbl_failures", LISTENERS[:1], "Times that a list in the DNS gave no answer that counts."
    ),
    _counted("connections", LISTENERS, "Connections now.", kind="gauge"),
    _counted("connections_limit", LISTENERS, "The most connections at a time.", kind="gauge"),
    _counted(
        "tls_sessions",
        LISTENERS,
        "TLS handshakes that succeeded.",
        Label("protocol", ("TLSv1.2", "TLSv1.3")),
    ),
    _counted("tls_handshake_failures", LISTENERS, "TLS handshakes that failed."),
    _counted("tls_reloads", LISTENERS, "Times that a replaced certificate was taken into use."),
    _counted(
        "tls_reload_failures",
        LISTENERS,
        "Times that a replaced certificate could not be loaded; the one before stays in use.",
    ),
    _counted(
        "tls_last_reload_successful",
        LISTENERS,
        "1, or 0 after a replaced certificate that could not be loaded.",
        kind="gauge",
    )._replace(initial=1),
    _counted("login_attempts", LOGINS, "Names and passwords that were taken from clients."),
    _counted(
        "logins",
        LOGINS,
        "Attempts to log in by their outcome; a success counts when its session has ended.",
        Label("result", ("success", "failure")),
    ),
    _counted(
        "logins_refused",
        LOGINS,
        "Attempts refused for too many failures before them, among the failures.",
    ),
    _counted("messages_received", RECEIVERS, "Messages that were queued for a client."),
    _counted("message_received_bytes", RECEIVERS, "Their size, in bytes."),
    _counted(
        "senders_refused",
        RECEIVERS,
        "MAIL commands that were refused, up to a hundred in a session with those of RCPT.",
        Label("kind", DURATION),
    ),
    _counted(
        "recipients_refused",
        RECEIVERS,
        "RCPT commands that were refused, up to a hundred in a session with those of MAIL.",
        Label("reason", ("no_mailbox", "relay", "syntax", "temporary", "other")),
    ),
    _counted(
        "messages_refused",
        RECEIVERS,
        "Messages that were refused after DATA.",
        Label("kind", DURATION),
    ),
    _counted(
        "messages_queued",
        QUEUE,
        "Messages that qmail-send has taken on, by who queued them: the MX, an account's "
        "process (submission, or a forward), a forward of alias, a bounce, root, or another.",
        Label("source", ("mx", "account", "alias", "bounce", "root", "other")),
    ),
    _counted("message_queued_bytes", QUEUE, "Their size, in bytes."),
    _counted("messages_finished", QUEUE, "Messages that left the queue."),
    _counted(
        "deliveries",
        QUEUE,
        "Attempts at delivery that ended; of unknown channel are those under way when the "
        "logger started.",
        Label("channel", (*CHANNELS, "unknown")),
        Label("result", ("success", "deferral", "failure")),
    ),
    _counted(
        "deliveries_running", QUEUE, "Deliveries now.", Label("channel", CHANNELS), kind="gauge"
    ),
    _counted(
        "deliveries_limit",
        QUEUE,
        "The most deliveries at a time.",
        Label("channel", CHANNELS),
        kind="gauge",
    ),
    _counted("bounces", QUEUE, "Bounce messages that were queued."),
    _counted("bounces_discarded", QUEUE, "Bounces of bounces' bounces, thrown away."),
    Metric(
        *("queue_messages", "gauge", "Messages in the queue.", QUEUE_DIRECTORY),
        by_service=False,
    ),
    Metric(
        "queue_unprocessed_messages",
        "gauge",
        "Those of them that qmail-send has not looked at yet.",
        QUEUE_DIRECTORY,
        by_service=False,
    ),
    Metric(
        "queue_oldest_message_age_seconds",
        "gauge",
        "How long the oldest message has been in the queue; 0 when it is empty.",
        QUEUE_DIRECTORY,
        by_service=False,
    ),
    Metric("service_up", "gauge", "1 when the service's process runs, else 0.", SUPERVISOR),
    Metric(
        "service_ready",
        "gauge",
        "1 when the service has said that it is ready, of those that do.",
        SUPERVISOR,
    ),
    Metric(
        "service_changed_timestamp_seconds",
        "gauge",
        "When the service last went up or down.",
        SUPERVISOR,
    ),
    Metric(
        "tls_certificate_not_after_timestamp_seconds",
        "gauge",
        "When the certificate expires that the service shows to its clients.",
        PROBE,
    ),
    Metric("volume_size_bytes", "gauge", "The size of the data volume.", VOLUME, by_service=False),
    Metric(
        *("volume_available_bytes", "gauge", "What is left of it.", VOLUME),
        by_service=False,
    ),
    Metric(
        *("volume_inodes", "gauge", "How many files the data volume can hold.", VOLUME),
        by_service=False,
    ),
    Metric(
        *("volume_available_inodes", "gauge", "How many more it can hold.", VOLUME),
        by_service=False,
    ),
    Metric(
        *("build", "info", "The version of the appliance.", PACKAGE, ()),
        labels=(Label("version", ()),),
        by_service=False,
    ),
)

BY_NAME = {metric.name: metric for metric in METRICS}
COUNTED = tuple(metric for metric in METRICS if metric.source == LOG)
# The services whose loggers count.
SERVICES = (*LISTENERS, *QUEUE)


def samples(service: str) -> dict[tuple[str, ...], int]:
    """Return what a service's logger counts, all at the start: (metric, label values...)."""
    return {
        (metric.name, *values): metric.initial
        for metric in COUNTED
        if service in metric.services
        for values in metric.combinations(service)
    }


def reference() -> str:
    """Return the table of all metrics in Markdown."""
    lines = ["| metric | kind | labels | what it says | from |", "|---|---|---|---|---|"]
    lines += (f"| {' | '.join(row)} |" for row in _rows(METRICS))
    return "\n".join(lines) + "\n"


def _rows(metrics: Iterable[Metric]) -> Iterator[tuple[str, ...]]:
    for metric in metrics:
        labels = ["`service`"] * metric.by_service
        for label in metric.labels:
            values = ", ".join((*label.values, *label.of_mx))
            labels.append(f"`{label.name}`" + (f": {values}" if values else ""))
        yield f"`{metric.full_name}`", metric.kind, "; ".join(labels), metric.help, metric.source
