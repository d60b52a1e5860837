"""``postern metrics``: serve what is counted and measured to Prometheus.

    postern metrics [-n fd] [-q QUEUE] ADDRESS PORT     serve at http://ADDRESS:PORT/metrics
    postern metrics reference                           print the table of all metrics

Started as root it binds its port, forks the process that looks at QUEUE, as qmails, and
becomes the user metrics before it reads anything.
"""

import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from appliance import (
    metrics_count,
    metrics_http,
    metrics_queue,
    metrics_services,
    metrics_table,
)
from appliance.health import service_names
from appliance.layout import METRICS, QMAILS, Layout
from appliance.metrics_http import Page
from appliance.metrics_table import BY_NAME, SERVICES
from appliance.version import installed

if TYPE_CHECKING:
    from prometheus_client import Metric as Family

EXIT_USAGE = 100
EXIT_FATAL = 111
USAGE = "usage: postern metrics [-n fd] [-q queue] address port | reference\n"

FRESH_SECONDS = 1.0  # for which an answer is given again


class Sample(NamedTuple):
    """One number."""

    name: str
    labels: tuple[str, ...]  # values, in the order of the table
    value: float


class Options(NamedTuple):
    """The command line."""

    address: str
    port: int
    notify: int | None = None
    queue: str = ""


def parse_arguments(arguments: list[str]) -> Options:
    """Return the options that follow the command.

    Raises:
        ValueError: they are none.
    """
    words = list(arguments)
    given: dict[str, str] = {}
    while words and words[0] in ("-n", "-q"):
        option, value, *words = words
        given[option] = value
    address, port = words
    notify = int(given["-n"]) if "-n" in given else None
    return Options(address, int(port), notify, given.get("-q", ""))


def main(argv: list[str], env: dict[str, str]) -> int:
    """Serve until killed; or print the reference.

    Returns:
        0 with the reference; 100 for wrong usage; 111 when it cannot be served, or no more.
    """
    if argv[1:] == ["reference"]:
        sys.stdout.write(metrics_table.reference())
        return 0
    try:
        options = parse_arguments(argv[1:])
    except ValueError:
        sys.stderr.write(USAGE)
        return EXIT_USAGE
    try:
        listener = metrics_http.listen(options.address, options.port)
        queue = metrics_queue.start(options.queue, QMAILS) if options.queue else None
        metrics_queue.become(METRICS)
    except OSError as error:
        _log(f"{options.address} port {options.port}: {os.strerror(error.errno or 0)}")
        return EXIT_FATAL
    os.nice(5)  # mail comes first
    places = Layout()
    certificates = metrics_services.Certificates(places, _log)
    collector = Collector(places, queue, certificates)
    server = metrics_http.Server(listener, Exposition(collector).page)
    if options.notify is not None:
        os.write(options.notify, b"\n")
        os.close(options.notify)
    certificates.start()
    try:
        server.serve()
    except metrics_queue.Gone as error:
        _log(str(error))
    return EXIT_FATAL


class Collector:
    """Collects every metric that there are values of; a collector for prometheus_client."""

    def __init__(
        self,
        places: Layout,
        queue: metrics_queue.Asker | None,
        certificates: metrics_services.Certificates | None,
    ) -> None:
        """Collect from places; what is None is not there to be asked."""
        self._places = places
        self._queue = queue
        self._certificates = certificates
        self._reloads = 0
        self._build = installed()

    def collect(self) -> Iterator["Family"]:
        """Yield the families of metrics, each with its samples.

        Raises:
            Gone: the process that looks at the queue has ended.
        """
        from prometheus_client import Metric as Family

        families: dict[str, Family] = {}
        for name, labels, value in self.samples():
            metric = BY_NAME[name]
            if name not in families:
                families[name] = Family(f"postern_{name}", metric.help, metric.kind)
            labelled = dict(zip(metric.label_names, labels, strict=True))
            families[name].add_sample(metric.full_name, labelled, value)
        yield from families.values()

    def samples(self) -> Iterator[Sample]:
        """Yield every sample."""
        yield Sample("build", (self._build,), 1)
        yield from self._counts()
        yield from self._waiting()
        yield from self._services()
        yield from self._volume()

    def _counts(self) -> Iterator[Sample]:
        reloads = 0
        for service in SERVICES:
            counts = metrics_count.read(f"{self._places.metrics}/{service}", service) or {}
            for (name, *values), number in counts.items():
                labels = (service, *values) if BY_NAME[name].by_service else tuple(values)
                yield Sample(name, labels, number)
            reloads += counts.get(("tls_reloads",), 0)
        if self._certificates is not None and reloads != self._reloads:
            self._reloads = reloads
            self._certificates.look_again()

    def _waiting(self) -> Iterator[Sample]:
        seen = None if self._queue is None else self._queue.ask()
        if seen is not None:
            yield Sample("queue_messages", (), seen.messages)
            yield Sample("queue_unprocessed_messages", (), seen.unprocessed)
            age = max(0.0, time.time() - seen.oldest) if seen.oldest else 0.0
            yield Sample("queue_oldest_message_age_seconds", (), age)

    def _services(self) -> Iterator[Sample]:
        for name in service_names(self._places):
            status = metrics_services.status(self._places, name)
            if status is not None:
                yield Sample("service_up", (name,), status.up)
                if status.ready is not None:
                    yield Sample("service_ready", (name,), status.ready)
                yield Sample("service_changed_timestamp_seconds", (name,), status.changed)
        if self._certificates is not None:
            for name, end in self._certificates.ends.items():
                yield Sample("tls_certificate_not_after_timestamp_seconds", (name,), end)

    def _volume(self) -> Iterator[Sample]:
        try:
            volume = os.statvfs(self._places.data)
        except OSError:
            return
        yield Sample("volume_size_bytes", (), volume.f_blocks * volume.f_frsize)
        yield Sample("volume_available_bytes", (), volume.f_bavail * volume.f_frsize)
        yield Sample("volume_inodes", (), volume.f_files)
        yield Sample("volume_available_inodes", (), volume.f_favail)


class Exposition:
    """The page of metrics, in Prometheus' text format."""

    def __init__(self, collector: Collector) -> None:
        """Show what collector collects."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder

        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        self._encode, self._kind = choose_encoder("")
        self._made_at = -FRESH_SECONDS
        self._content = b""

    def page(self, path: str) -> Page | None:
        """Return the page at path: that of metrics, or one that says where they are."""
        if path == "/":
            return Page(b"The metrics are at /metrics.\n")
        if path != "/metrics":
            return None
        now = time.monotonic()
        if now - self._made_at >= FRESH_SECONDS:
            self._content, self._made_at = self._encode(self._registry), now
        return Page(self._content, self._kind)


def _log(text: str) -> None:
    os.write(2, f"metrics: {text}\n".encode("utf-8", "replace"))
