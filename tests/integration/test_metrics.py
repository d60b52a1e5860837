"""Prometheus metrics: they move when something happens, and tell of nobody."""

import time
import urllib.request
from pathlib import Path

import pytest
from harness import mail, wait
from harness.appliance import Appliance
from harness.clients import SUBMITTERS
from harness.dialogue import Dialogue
from prometheus_client.parser import text_string_to_metric_families

Numbers = dict[str, float]


def page(measured: Appliance) -> str:
    """Return the page of metrics."""
    with urllib.request.urlopen(f"http://{measured.address}:9626/metrics", timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        return str(answer.read().decode())


def numbers(measured: Appliance) -> Numbers:
    """Return every sample, by its name and the values of its labels."""
    return {
        " ".join([sample.name, *(value for _, value in sorted(sample.labels.items()))]): (
            sample.value
        )
        for family in text_string_to_metric_families(page(measured))
        for sample in family.samples
    }


def grown(measured: Appliance, before: Numbers, **least: float) -> Numbers:
    """Wait until counters have grown by what is wanted; return all by how much they did."""

    def seen() -> Numbers | None:
        now = numbers(measured)
        growth = {name: value - before.get(name, 0) for name, value in now.items()}
        names = {f"postern_{name.replace('__', ' ')}": more for name, more in least.items()}
        return growth if all(growth[name] >= more for name, more in names.items()) else None

    return wait.until(f"counters grown by {least}", seen)


def test_mail_and_a_wrong_password_are_counted(measured: Appliance, tmp_path: Path) -> None:
    before = numbers(measured)
    account = measured.add_account()
    message = mail.compose(account.address, account.address, size=5000)
    SUBMITTERS["smtplib-starttls"](measured.endpoint, account, message, account.address, tmp_path)
    with Dialogue(measured.endpoint, "pop3s") as dialogue:
        dialogue.say(b"USER " + account.address.encode())
        assert dialogue.code(b"PASS wrong") == b"-ERR"
    with Dialogue(measured.endpoint, "mx") as dialogue:
        dialogue.say(b"EHLO client.example")
        dialogue.say(b"MAIL FROM:<>")
        assert dialogue.code(b"RCPT TO:<nobody@elsewhere.example>") == b"553"
        assert dialogue.code(b"RCPT TO:<nobody@" + measured.domain.encode() + b">") == b"550"
    with Dialogue(measured.endpoint, "submissions", greet=False, tls=False) as dialogue:
        dialogue.send(b"EHLO client.example\r\n")
        dialogue.rest()
    growth = grown(
        measured,
        before,
        tls_handshake_failures_total__submissions=1,
        connections_accepted_total__submission=1,
        connections_accepted_total__pop3s=1,
        login_attempts_total__submission=1,
        logins_total__success__submission=1,
        logins_total__failure__pop3s=1,
        messages_received_total__submission=1,
        message_received_bytes_total__submission=5000,
        recipients_refused_total__relay__mx=1,
        recipients_refused_total__no_mailbox__mx=1,
        messages_queued_total__account=1,
        message_queued_bytes_total=5000,
        messages_finished_total=1,
        deliveries_total__local__success=1,
    )
    assert growth["postern_logins_total success pop3s"] == 0
    assert growth["postern_deliveries_total remote success"] == 0
    assert growth["postern_tls_sessions_total TLSv1.3 submission"] >= 1
    text = page(measured)
    assert account.address.partition("@")[0] not in text
    assert measured.domain not in text


def test_what_is_measured_is_so(measured: Appliance) -> None:
    def looked_at() -> Numbers | None:
        found = numbers(measured)
        return found if sum("not_after" in name for name in found) == 5 else None

    found = wait.until("certificates looked at", looked_at)
    ends = {value for name, value in found.items() if "not_after" in name}
    assert len(ends) == 1
    assert 800 * 86400 < ends.pop() - time.time() < 826 * 86400
    up = {name: value for name, value in found.items() if "service_up" in name}
    status, listed = measured.run(["ls", "/run/postern/service"])
    assert status == 0
    assert up == {f"postern_service_up {name}": 1 for name in listed.split()}
    changed = found["postern_service_changed_timestamp_seconds mx"]
    assert -1 < time.time() - changed < 600
    assert found["postern_queue_messages"] == 0
    assert found["postern_volume_available_bytes"] > 0


def test_a_service_that_is_down_is_seen(measured: Appliance) -> None:
    def up(wanted: float) -> bool:
        return numbers(measured)["postern_service_up dkimsignd"] == wanted

    service = "/run/postern/service/dkimsignd"
    assert measured.run(["s6-svc", "-wd", "-T", "20000", "-d", service])[0] == 0
    try:
        wait.until("a service shown as down", lambda: up(0))
    finally:
        measured.run(["s6-svc", "-wU", "-T", "20000", "-u", service])
    wait.until("a service shown as up", lambda: up(1))


def test_a_certificate_that_cannot_be_loaded_is_counted(measured: Appliance) -> None:
    certificate = "/data/tls/cert.pem"
    status, kept = measured.run(["cat", certificate])
    assert status == 0
    before = numbers(measured)

    def connect() -> None:
        with Dialogue(measured.endpoint, "pop3"):
            pass  # who connects has the files looked at

    measured.run(["sh", "-c", f"echo no certificate > {certificate}"])
    try:
        connect()
        grown(measured, before, tls_reload_failures_total__pop3=1)
        assert numbers(measured)["postern_tls_last_reload_successful pop3"] == 0
    finally:
        measured.run(["sh", "-c", f"cat > {certificate}"], data=kept.encode())
    connect()
    grown(measured, before, tls_reloads_total__pop3=1)
    assert numbers(measured)["postern_tls_last_reload_successful pop3"] == 1


@pytest.mark.parametrize("process", ["serves", "looks at the queue"])
def test_metrics_come_back_when_a_process_is_killed(measured: Appliance, process: str) -> None:
    first, second = measured.processes_of("metrics")
    killed = first if process == "serves" else second
    status, printed = measured.run(["sh", "-c", f"kill -9 {inner_pid(measured, killed.pid)}"])
    assert status == 0, printed

    wait.until("the end of a process", lambda: not killed.alive())

    def served() -> bool:
        # Who serves learns that nobody looks any more when it asks.
        try:
            found = numbers(measured)
        except OSError:
            return False
        running = measured.processes_of("metrics")
        return "postern_queue_messages" in found and not {first, second} & set(running)

    wait.until("metrics again", served)


def inner_pid(measured: Appliance, pid: int) -> int:
    """Return the number that a process has in the container."""
    text = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("NSpid:")]
    return int(line.split()[-1])


def test_health_asks_for_it(measured: Appliance) -> None:
    wait.until(
        "health of metrics", lambda: measured.postern("health", "--service", "metrics")[0] == 0
    )


def test_it_is_off_unless_asked_for(appliance: Appliance) -> None:
    status, listed = appliance.run(["ls", "/run/postern/service"])
    assert status == 0
    assert "metrics" not in listed.split()
    assert not [p for p in appliance.processes() if " log -" in p.command]
