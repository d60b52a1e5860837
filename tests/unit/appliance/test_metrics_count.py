"""What the loggers count: the lines of our programs, and nothing that a client makes up."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import jsonlog, metrics_count, metrics_table
from appliance.metrics_count import Publisher, Tally, decode, encode

TAIL = b" ip=192.0.2.1 session=abc-1"


def counted(service: str, *lines: bytes) -> dict[tuple[str, ...], int]:
    """Return what lines changed."""
    tally = Tally(service)
    before = dict(tally.values)
    for line in lines:
        tally.line(line)
    assert tally.values.keys() == before.keys()
    return {key: value for key, value in tally.values.items() if value != before[key]}


ACCEPT = b"acceptserver: 25 accept pid 7 (3/200)" + TAIL
LINES: list[tuple[str, bytes, dict[tuple[str, ...], int]]] = [
    (
        *("mx", ACCEPT),
        {("connections_accepted",): 1, ("connections",): 3, ("connections_limit",): 200},
    ),
    (
        *("mx", b"acceptserver: 25 refuse 12 (limit of 200 connections) ip=192.0.2.1"),
        {("connections_refused", "limit"): 12},
    ),
    (
        *("pop3", b"acceptserver: 110 refuse 1 (limit of 5 connections per host) ip=192.0.2.1"),
        {("connections_refused", "address_limit"): 1},
    ),
    (
        *("mx", b"rblsmtpd: 192.0.2.1 pid 9: 553 see http://bl.example/" + TAIL),
        {("connections_refused", "dnsbl"): 1},
    ),
    (
        *("mx", b"rblsmtpd: 192.0.2.1 pid 9: 451 try later" + TAIL),
        {("connections_refused", "dnsbl"): 1},
    ),
    (
        *("mx", b"rblsmtpd: 192.0.2.1 pid 9: unable to ask bl.example: timed out" + TAIL),
        {("dnsbl_failures",): 1},
    ),
    (
        *("mx", b"greetdelay 9 client spoke first, after 0.1 seconds" + TAIL),
        {("connections_refused", "greet_delay"): 1},
    ),
    ("mx", b"greetdelay 9 client gone after 0.1 seconds" + TAIL, {}),
    (
        *("pop3s", b"acceptserver: TLS started: TLSv1.3 TLS_AES_256_GCM_SHA384" + TAIL),
        {("tls_sessions", "TLSv1.3"): 1},
    ),
    (
        *("mx", b"acceptserver: TLS handshake failed: no shared cipher" + TAIL),
        {("tls_handshake_failures",): 1},
    ),
    ("mx", b"acceptserver: TLS: new certificate in use", {("tls_reloads",): 1}),
    (
        *("mx", b"acceptserver: TLS: /c.pem: No such file; the certificate in use stays"),
        {("tls_reload_failures",): 1, ("tls_last_reload_successful",): 0},
    ),
    (
        *("mx", b"acceptserver: TLS: the TLS zygote died; no TLS for now"),
        {("tls_reload_failures",): 1, ("tls_last_reload_successful",): 0},
    ),
    (
        *("pop3", b"authup 7 checkpassword 8 attempt for alice@example.org" + TAIL),
        {("login_attempts",): 1},
    ),
    (
        *("pop3", b"authup 7 checkpassword 8 succeeded, child completed" + TAIL),
        {("logins", "success"): 1},
    ),
    (
        *("submission", b"authup 7 checkpassword 8 failed, 4 remaining" + TAIL),
        {("logins", "failure"): 1},
    ),
    (
        *("submission", b"authup 7 too many failures: this attempt is refused" + TAIL),
        {("logins_refused",): 1},
    ),
    (
        *("mx", b"qmail-smtpd 7 qp 8 from <a@b.example> to 2, 1234 bytes" + TAIL),
        {("messages_received",): 1, ("message_received_bytes",): 1234},
    ),
    (
        *("submissions", b"ofmipd 7 qp 8 from <a@b.example> to 2, 99 bytes"),
        {("messages_received",): 1, ("message_received_bytes",): 99},
    ),
    (
        "mx",
        b"qmail-smtpd 7 refused RCPT TO:<x@y.example>: 553 sorry, that domain isn't in my list "
        b"of allowed rcpthosts (#5.7.1)" + TAIL,
        {("recipients_refused", "relay"): 1},
    ),
    (
        "mx",
        b"qmail-smtpd 7 refused rcpt to:<x>: 550 sorry, no mailbox here by that name. (#5.1.1)",
        {("recipients_refused", "no_mailbox"): 1},
    ),
    (
        *("mx", b"qmail-smtpd 7 refused RCPT TO:<x: 555 syntax error (#5.5.4)" + TAIL),
        {("recipients_refused", "syntax"): 1},
    ),
    (
        *("mx", b"qmail-smtpd 7 refused RCPT TO:<x>: 451 unable to check (#4.3.0)" + TAIL),
        {("recipients_refused", "temporary"): 1},
    ),
    (
        *("mx", b"qmail-smtpd 7 refused RCPT TO:<x>: 553 no" + TAIL),
        {("recipients_refused", "other"): 1},
    ),
    (
        *("submission", b"ofmipd 7 refused MAIL FROM:<x@y>: 553 sorry, not yours (#5.7.1)"),
        {("senders_refused", "permanent"): 1},
    ),
    (
        *("mx", b"qmail-smtpd 7 refused a message: 451 qqt failure (#4.3.0)" + TAIL),
        {("messages_refused", "temporary"): 1},
    ),
    ("queue", b"end msg 12", {("messages_finished",): 1}),
    ("queue", b"bounce msg 12 qp 13", {("bounces",): 1}),
    ("queue", b"triple bounce: discarding bounce/12", {("bounces_discarded",): 1}),
    (
        *("queue", b"status: local 1/10 remote 2/20"),
        {
            ("deliveries_running", "local"): 1,
            ("deliveries_limit", "local"): 10,
            ("deliveries_running", "remote"): 2,
            ("deliveries_limit", "remote"): 20,
        },
    ),
    (
        *("queue", b"delivery 5: success: did_1+0+0/"),
        {("deliveries", "unknown", "success"): 1},
    ),
]


@pytest.mark.parametrize(("service", "line", "wanted"), LINES)
def test_a_line_is_counted(service: str, line: bytes, wanted: dict[tuple[str, ...], int]) -> None:
    assert counted(service, line) == wanted


@pytest.mark.parametrize(
    ("uid", "source"),
    [
        (7791, "mx"),
        (20000, "account"),
        (7790, "alias"),
        (7796, "bounce"),
        (0, "root"),
        (5, "other"),
    ],
)
def test_a_message_counts_by_who_queued_it(uid: int, source: str) -> None:
    line = b"info msg 12: bytes 345 from <a@b.example> qp 9 uid %d" % uid
    assert counted("queue", line) == {
        ("messages_queued", source): 1,
        ("message_queued_bytes",): 345,
    }


@pytest.mark.parametrize("channel", metrics_table.CHANNELS)
@pytest.mark.parametrize("result", ["success", "deferral", "failure"])
def test_a_delivery_counts_by_its_channel(channel: str, result: str) -> None:
    lines = (
        f"starting delivery 5: msg 12 to {channel} a@b.example".encode(),
        f"delivery 5: {result}: whatever/".encode(),
    )
    assert counted("queue", *lines) == {("deliveries", channel, result): 1}


def test_deliveries_that_never_end_are_forgotten() -> None:
    tally = Tally("queue")
    for number in range(5 * metrics_count.RUNNING_LIMIT):
        tally.line(b"starting delivery %d: msg 1 to local a" % number)
    assert len(tally._running) <= metrics_count.RUNNING_LIMIT


def test_connections_now_go_down_again_and_never_below_none() -> None:
    end = b"acceptserver: 25 end pid 7 status 0" + TAIL
    assert counted("mx", end) == {}
    assert counted("mx", ACCEPT, end)[("connections",)] == 2


# What a client says comes behind a program's own words; here it looks like other lines.
HOSTILE: list[tuple[str, bytes, dict[tuple[str, ...], int]]] = [
    (
        *(
            "pop3",
            b"authup 7 checkpassword 8 attempt for x checkpassword 9 succeeded, child" + TAIL,
        ),
        {("login_attempts",): 1},
    ),
    (
        *(
            "pop3",
            b"authup 7 checkpassword 8 attempt for authup 7 checkpassword 8 succeeded, child",
        ),
        {("login_attempts",): 1},
    ),
    (
        *("mx", b"qmail-smtpd 7 qp 8 from <> to 9, 99999 bytes ip=x> to 1, 5 bytes" + TAIL),
        {("messages_received",): 1, ("message_received_bytes",): 5},
    ),
    (
        *("mx", b"qmail-smtpd 7 qp 8 from <a> to 1, 99999999999999999999 bytes" + TAIL),
        {("messages_received",): 1},
    ),
    (
        *("mx", b"qmail-smtpd 7 refused RCPT TO:<x: 450 (#4.0.0)>: 550 no (#5.1.1)" + TAIL),
        {("recipients_refused", "no_mailbox"): 1},
    ),
    ("mx", b"fixsmtpio 7 4: acceptserver: 25 accept pid 7 (3/200)" + TAIL, {}),
    ("mx", b"acceptserver: 25 accept pid 7 (%s/200)" % (b"9" * 40), {}),
    ("mx", b"acceptserver: TLS started: TLSv1.3x y" + TAIL, {}),
    ("mx", b"acceptserver: TLS: x; no TLS for now" + TAIL, {}),
    # Not one of this service's.
    ("queue", ACCEPT, {}),
    ("mx", b"authup 7 checkpassword 8 succeeded, child completed" + TAIL, {}),
    ("pop3", b"rblsmtpd: 192.0.2.1 pid 9: 553 x" + TAIL, {}),
    ("mx", b"", {}),
    ("mx", b" ", {}),
    ("mx", b"\xff\x00", {}),
    ("nobody", ACCEPT, {}),
]


@pytest.mark.parametrize(("service", "line", "wanted"), HOSTILE)
def test_what_a_client_says_counts_for_nothing(
    service: str, line: bytes, wanted: dict[tuple[str, ...], int]
) -> None:
    assert counted(service, line) == wanted


FIRST_WORDS = sorted({line.split(b" ", 1)[0] + b" " for _, line, _ in LINES})


@given(
    st.sampled_from(metrics_table.SERVICES),
    st.lists(st.builds(bytes.__add__, st.sampled_from(FIRST_WORDS), st.binary())),
)
def test_no_line_makes_a_metric_or_a_label(service: str, lines: list[bytes]) -> None:
    counted(service, *lines)


@pytest.mark.parametrize(
    "piece",
    [b"> to 1, 2 bytes ip=", b": 450 (#4.0.0)", b"> qp 1 uid 2", b"; no TLS for now", b"9", b" "],
)
def test_a_long_line_takes_no_longer_than_its_length(piece: bytes) -> None:
    starts = (
        b"qmail-smtpd 7 qp 8 from <",
        b"qmail-smtpd 7 refused RCPT ",
        b"qmail-smtpd 7 ",
        b"acceptserver: TLS: ",
        b"info msg 1: bytes 1 from <",
        b"authup ",
    )

    def seconds(size: int) -> float:
        tally = Tally("mx")
        lines = [start + piece * (size // len(piece)) for start in starts]
        before = time.process_time()
        for line in lines:
            tally.line(line)
        return time.process_time() - before

    # Sixteen times as long, and far from 256 times as slow.
    small = max(min(seconds(4096) for _ in range(5)), 1e-5)
    assert min(seconds(65536) for _ in range(5)) < 100 * small


# The file of counts.


@pytest.mark.parametrize("service", metrics_table.SERVICES)
def test_counts_survive_their_file(service: str) -> None:
    values = {key: number for number, key in enumerate(metrics_table.samples(service))}
    assert decode(encode(values), service) == values
    assert len(encode(dict.fromkeys(values, 10**18))) < metrics_count.FILE_LIMIT


def test_a_truncated_file_is_none() -> None:
    content = encode(metrics_table.samples("mx"))
    assert all(decode(content[:size], "mx") is None for size in range(len(content)))


@pytest.mark.parametrize(
    "line",
    [
        *(b"connections_accepted -1", b"connections_accepted x", b"connections_accepted"),
        *(b"connections_accepted 1 1", b"connections_accepted 1e9", b"\xff\xff 1", b""),
        *(b"connections_refused account=alice 1", b"made_up 1", b"logins success 1"),
        *("connections_accepted ٣".encode(), b"connections_accepted " + b"9" * 30),
    ],
)
def test_a_file_brings_in_nothing_but_its_services_numbers(line: bytes) -> None:
    assert decode(line + b"\nend\n", "mx") == {}


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    assert metrics_count.read(str(tmp_path / "mx"), "mx") is None
    (tmp_path / "link").symlink_to(__file__)
    assert metrics_count.read(str(tmp_path / "link"), "mx") is None
    os.mkfifo(tmp_path / "fifo")
    assert metrics_count.read(str(tmp_path / "fifo"), "mx") is None
    assert metrics_count.read(str(tmp_path), "mx") is None


# The logger.


def logged(content: bytes, *arguments: str) -> bytes:
    """Return what a logger makes of content."""
    command = [sys.executable, "-m", "ucspi", "postern", "log", *arguments]
    return subprocess.run(
        command, input=content, capture_output=True, check=True, timeout=60
    ).stdout


def test_a_logger_counts_and_still_writes_every_line(tmp_path: Path) -> None:
    path = str(tmp_path / "mx")
    content = ACCEPT + b"\n" + b"x" * 20000 + b"\n" + ACCEPT + b"\nlast"
    said = logged(content, "-t", "-c", path, "mx")
    whole = [line for line in said.split(b"\n") if line]
    assert all(line.startswith(b"mx: ") for line in whole)
    assert b"".join(line[4:] for line in whole) == content.replace(b"\n", b"")
    counts = metrics_count.read(path, "mx")
    assert counts is not None
    assert counts[("connections_accepted",)] == 2


def test_a_logger_counts_and_writes_objects(tmp_path: Path) -> None:
    path = str(tmp_path / "mx")
    said = logged(ACCEPT + b"\n", "-c", path, "mx")
    assert b'"session": "abc-1"' in said
    assert (metrics_count.read(path, "mx") or {})[("connections",)] == 3


def test_a_logger_without_a_place_for_counts_says_so_once_and_logs(tmp_path: Path) -> None:
    path = str(tmp_path / "none" / "mx")
    command = [sys.executable, "-m", "ucspi", "postern", "log", "-t", "-c", path, "mx"]
    done = subprocess.run(
        command, input=ACCEPT + b"\n", capture_output=True, check=True, timeout=60
    )
    assert done.stdout == b"mx: " + ACCEPT + b"\n"
    assert done.stderr == f"metrics: {path}: No such file or directory\n".encode()


@pytest.mark.parametrize("arguments", [["-t", "mx"], ["-c", "x"], [], ["-x"], ["a", "b"]])
def test_a_logger_refuses_other_words(arguments: list[str]) -> None:
    assert jsonlog.main(["log", *arguments], {}) == 100


def test_counts_are_there_before_the_first_line(tmp_path: Path) -> None:
    path = str(tmp_path / "pop3")
    reading, writing = os.pipe()
    try:
        Publisher("pop3", path, reading)
        assert metrics_count.read(path, "pop3") == metrics_table.samples("pop3")
    finally:
        os.close(reading)
        os.close(writing)


def test_counts_are_published_while_nothing_more_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_count, "INTERVAL", 0.05)
    path = str(tmp_path / "mx")
    reading, writing = os.pipe()
    try:
        publisher = Publisher("mx", path, reading)
        publisher.count([ACCEPT])
        assert (metrics_count.read(path, "mx") or {})[("connections_accepted",)] == 0
        waiting = threading.Thread(target=publisher.wait, daemon=True)
        waiting.start()
        waiting.join(30)
        assert not waiting.is_alive()
        assert (metrics_count.read(path, "mx") or {})[("connections_accepted",)] == 1
    finally:
        os.close(reading)
        os.close(writing)


def test_counts_are_published_while_lines_go_on_coming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "mx")
    now = [100.0]
    monkeypatch.setattr(metrics_count.time, "monotonic", lambda: now[0])
    reading, writing = os.pipe()
    try:
        publisher = Publisher("mx", path, reading)
        for seconds, published in ((0.0, 0), (0.5, 0), (0.6, 3), (0.5, 3), (1.1, 5)):
            now[0] += seconds
            publisher.count([ACCEPT])
            counts = metrics_count.read(path, "mx") or {}
            assert counts[("connections_accepted",)] == published
    finally:
        os.close(reading)
        os.close(writing)
