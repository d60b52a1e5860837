"""The page of metrics: its form, its names, and what is on it when little is known."""

import os
import re
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance import metrics, metrics_count, metrics_queue, metrics_table, render, start
from appliance.layout import METRICS, Layout
from appliance.metrics import Collector, Exposition, Options, parse_arguments
from appliance.metrics_table import BY_NAME
from appliance.settings import Settings
from appliance.settings_metrics import Listen, listen
from appliance.settings_sources import SettingsError, load

DOCS = Path(__file__).parents[3] / "docs/metrics.md"


def settings(**variables: str) -> Settings:
    env = {f"POSTERN_{name.upper()}": text for name, text in variables.items()}
    return load({"POSTERN_HOSTNAME": "mail.example.org"} | env).settings


def shown(collector: Collector) -> dict[str, float]:
    """Return the samples of a page by name and labels, as they are written."""
    page = Exposition(collector).page("/metrics")
    assert page is not None
    assert page.kind.startswith("text/plain; version=")
    samples = {}
    for family in text_string_to_metric_families(page.content.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}"] = sample.value
    return samples


@pytest.fixture
def running(tmp_path: Path) -> Layout:
    places = Layout(str(tmp_path))
    for path in (places.metrics, places.data):
        os.makedirs(path)
    return places


def test_where_nothing_is_known_there_is_a_page(tmp_path: Path) -> None:
    found = shown(Collector(Layout(str(tmp_path / "none")), None, None))
    assert [name.partition("{")[0] for name in found] == ["postern_build_info"]


def test_counts_of_every_service(running: Layout) -> None:
    for service in metrics_table.SERVICES:
        values = metrics_table.samples(service)
        values |= {key: number for number, key in enumerate(values, start=100)}
        Path(running.metrics, service).write_bytes(metrics_count.encode(values))
    found = shown(Collector(running, None, None))
    assert found["postern_connections_accepted_total{service=mx}"] == 100
    assert found["postern_connections_refused_total{reason=address_limit,service=pop3}"] == 102
    assert found["postern_messages_queued_total{source=mx}"] == 100
    assert "postern_deliveries_total{channel=remote,result=deferral}" in found
    counted = [name for name in found if not name.startswith(("postern_volume", "postern_build"))]
    assert len(counted) == sum(len(metrics_table.samples(s)) for s in metrics_table.SERVICES)


@pytest.mark.parametrize("content", [b"", b"end", b"connections_accepted 7\n", b"\0" * 50000])
def test_a_broken_file_takes_only_its_own_counts_away(running: Layout, content: bytes) -> None:
    Path(running.metrics, "mx").write_bytes(content)
    Path(running.metrics, "pop3").write_bytes(metrics_count.encode(metrics_table.samples("pop3")))
    found = shown(Collector(running, None, None))
    assert not [name for name in found if "service=mx" in name]
    assert found["postern_connections_accepted_total{service=pop3}"] == 0


def test_nobody_brings_an_address_into_the_page(running: Layout) -> None:
    whatever = b"connections_accepted 7\nalice@example.org 1\nlogins alice@example.org 1\nend\n"
    for service in metrics_table.SERVICES:
        Path(running.metrics, service).write_bytes(whatever)
    found = shown(Collector(running, None, None))
    assert found["postern_connections_accepted_total{service=mx}"] == 7
    assert not [name for name in found if "alice" in name]


def test_the_queue(running: Layout) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(metrics_queue._ANSWER.pack(5, 2, 1.0))
        found = shown(Collector(running, metrics_queue.Asker(ours), None))
        assert found["postern_queue_messages{}"] == 5
        assert found["postern_queue_unprocessed_messages{}"] == 2
        assert found["postern_queue_oldest_message_age_seconds{}"] > 1e9


def test_a_queue_that_is_unknown_is_not_shown_as_empty(running: Layout) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(metrics_queue._NONE)
        found = shown(Collector(running, metrics_queue.Asker(ours), None))
        assert not [name for name in found if "queue" in name]


def test_the_volume(running: Layout) -> None:
    found = shown(Collector(running, None, None))
    assert 0 < found["postern_volume_available_bytes{}"] <= found["postern_volume_size_bytes{}"]


def test_a_replaced_certificate_is_looked_at(running: Layout) -> None:
    class Looks:
        def __init__(self) -> None:
            self.again = 0
            self.ends = {"mx": 1e9}

        def look_again(self) -> None:
            self.again += 1

    looks = Looks()
    collector = Collector(running, None, looks)  # type: ignore[arg-type]
    values = metrics_table.samples("mx")
    for reloads, again in ((0, 0), (1, 1), (1, 1), (2, 2)):
        values[("tls_reloads",)] = reloads
        Path(running.metrics, "mx").write_bytes(metrics_count.encode(values))
        found = shown(collector)
        assert looks.again == again
    assert found["postern_tls_certificate_not_after_timestamp_seconds{service=mx}"] == 1e9


def test_a_page_is_given_again_to_who_asks_often(
    running: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    exposition = Exposition(Collector(running, None, None))
    values = metrics_table.samples("mx")
    accepted = []
    for number, seconds in ((1, 0.0), (2, 0.5), (3, 0.6)):
        now[0] += seconds
        values[("connections_accepted",)] = number
        Path(running.metrics, "mx").write_bytes(metrics_count.encode(values))
        page = exposition.page("/metrics")
        assert page is not None
        accepted += re.findall(rb'accepted_total\{service="mx"\} (\d)', page.content)
    assert accepted == [b"1", b"1", b"3"]


def test_other_pages(running: Layout) -> None:
    exposition = Exposition(Collector(running, None, None))
    assert exposition.page("/") is not None
    assert exposition.page("/metrics/") is None
    assert exposition.page("/../metrics") is None


# The table.


def test_the_page_of_the_documentation_has_the_table() -> None:
    assert DOCS.read_text().endswith("\n\n" + metrics_table.reference())


def test_the_alerts_of_the_documentation_name_metrics_that_there_are() -> None:
    named = set(re.findall(r"postern_\w+", DOCS.read_text().partition("## All metrics")[0]))
    assert named
    assert named <= {metric.full_name for metric in BY_NAME.values()}


@pytest.mark.parametrize("metric", metrics_table.METRICS, ids=lambda metric: metric.name)
def test_names_follow_the_conventions_of_prometheus(metric: metrics_table.Metric) -> None:
    assert re.fullmatch(r"postern_[a-z]+(_[a-z]+)*", metric.full_name)
    assert metric.full_name.endswith("_total") == (metric.kind == "counter")
    assert not metric.name.endswith("_total")
    assert metric.help.endswith(".")
    assert "|" not in metric.help
    for label in metric.label_names:
        assert re.fullmatch(r"[a-z]+", label)


def test_no_metric_has_many_values() -> None:
    assert sum(len(metrics_table.samples(s)) for s in metrics_table.SERVICES) < 200


# Settings, and what follows from them.


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0:9626", Listen("0", 9626)),
        ("0.0.0.0:9626", Listen("0", 9626)),
        ("[::]:9626", Listen("0", 9626)),
        ("127.0.0.1:1", Listen("127.0.0.1", 1)),
        ("[2001:DB8::1]:65535", Listen("2001:db8::1", 65535)),
    ],
)
def test_where_to_listen(text: str, wanted: Listen) -> None:
    assert settings(metrics_listen=text).metrics == wanted
    again = settings(metrics_listen=settings(metrics_listen=text).metrics_listen)
    assert again.metrics == wanted


@pytest.mark.parametrize(
    "text",
    ["9626", ":9626", "0:", "0:0", "0:65536", "0:+1", "0:09", "::1:9626", "localhost:9626", "0:٣"],
)
def test_where_nothing_can_listen(text: str) -> None:
    with pytest.raises(ValueError):
        listen(text)
    with pytest.raises(SettingsError, match="POSTERN_METRICS_LISTEN"):
        settings(metrics_listen=text)


def test_not_at_the_port_of_a_mail_service() -> None:
    with pytest.raises(SettingsError, match="POSTERN_METRICS_LISTEN: the port of a mail service"):
        settings(metrics_listen="0:25")
    with pytest.raises(SettingsError, match="the port of a mail service"):
        settings(metrics_listen="0:2525", ports="mx=2525")


def script(tree: render.Tree, path: str) -> str:
    return tree[path].content.decode()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_off_changes_nothing(log_format: str) -> None:
    tree = render.service_tree(settings(log_format=log_format))
    assert not [path for path in tree if path.startswith("metrics/")]
    for path in tree:
        if path.endswith("/run"):
            assert "metrics" not in script(tree, path)
            assert "\n  -V\n" not in script(tree, path)


@pytest.mark.parametrize(("log_format", "form"), [("text", "\n  -t"), ("json", "")])
def test_on_the_loggers_of_what_is_counted_count(log_format: str, form: str) -> None:
    tree = render.service_tree(settings(log_format=log_format, metrics_listen="0:9626"))
    for name in render.service_names(settings(metrics_listen="0:9626")):
        log = script(tree, f"{name}/log/run")
        counting = f"\npostern log{form}\n  -c /run/postern/metrics/{name} {name}\n"
        assert (counting in log) == (name in metrics_table.SERVICES)
    assert "\n  -V\n" in script(tree, "mx/run")
    assert script(tree, "metrics/data/check") == "http 127.0.0.1 9626\n"


def test_the_queue_is_looked_at_where_it_is() -> None:
    whole = render.service_tree(settings(metrics_listen="[::1]:9626"))
    assert "\npostern metrics -n 3\n  -q /data/queue\n  ::1 9626\n" in script(whole, "metrics/run")
    front = render.service_tree(settings(metrics_listen="0:9626", services="mx"))
    assert "\npostern metrics -n 3\n  0 9626\n" in script(front, "metrics/run")


def test_only_with_metrics_may_others_see_the_supervision(places: Layout) -> None:
    on = settings(metrics_listen="0:9626")
    render.write(render.service_tree(on), places.services)
    start.show_supervision(on, places)
    for name in render.service_names(on):
        found = Path(places.services, name, "supervise").stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o750, 0, METRICS.gid)


# The command.


def test_arguments() -> None:
    assert parse_arguments(["0", "9626"]) == Options("0", 9626)
    given = ["-n", "3", "-q", "/q", "::1", "1"]
    assert parse_arguments(given) == Options("::1", 1, 3, "/q")


@pytest.mark.parametrize(
    "arguments", [[], ["0"], ["0", "x"], ["-n", "0", "9626"], ["-x", "0", "9626"], ["-n"]]
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert metrics.main(["metrics", *arguments], {}) == 100
    assert capsys.readouterr().err == metrics.USAGE


def test_a_port_that_is_taken_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert metrics.main(["metrics", "127.0.0.1", port], {}) == 111
    assert capfd.readouterr().err == f"metrics: 127.0.0.1 port {port}: Address already in use\n"


def test_reference(capsys: pytest.CaptureFixture[str]) -> None:
    assert metrics.main(["metrics", "reference"], {}) == 0
    assert capsys.readouterr().out == metrics_table.reference()
