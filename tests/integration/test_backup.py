"""A backup of the running appliance, and another one that goes on from it."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from docker.models.containers import Container
from harness import appliance as harness
from harness import mail, wait
from harness.another import CAPABILITIES
from harness.appliance import Appliance
from harness.clients import FETCHERS, SUBMITTERS, Account, Endpoint
from harness.elsewhere import Elsewhere

SERVICE = "/run/postern/service"
DELIVERIES = 20  # while the backup is made
HOLE = 1 << 40  # bytes of a file that has none


class Run(NamedTuple):
    """What a command in a container came to."""

    status: int
    out: bytes
    err: str


def postern(container: str, *words: str) -> Run:
    """Run the postern command as the documentation says, its output going to a pipe."""
    argv = ["docker", "exec", "-i", container, "postern", *words]
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
    return Run(done.returncode, done.stdout, done.stderr.decode())


@contextmanager
def fresh(appliance: Appliance) -> Iterator[str]:
    """A data volume that nobody has used yet."""
    client = harness.client()
    volume = client.volumes.create()
    try:
        yield str(volume.id)
    finally:
        volume.remove(force=True)
        client.close()


def restored(appliance: Appliance, volume: str, backup: bytes, *words: str) -> Run:
    """Run postern restore on a volume as compose does, with the rights that the services have."""
    argv = ["docker", "run", "--rm", "-i", "--read-only", "--network", "none"]
    argv += ["--tmpfs", "/run:exec", "--tmpfs", "/tmp", "--tmpfs", "/var/qmail/control"]
    argv += ["--security-opt", "no-new-privileges", "--cap-drop", "ALL"]
    argv += [f"--cap-add={name}" for name in CAPABILITIES]
    argv += ["-v", f"{volume}:/data", appliance.image, "postern", "restore", *words]
    done = subprocess.run(argv, input=backup, capture_output=True, timeout=60, check=False)
    return Run(done.returncode, done.stdout, done.stderr.decode())


@contextmanager
def running(appliance: Appliance, volume: str) -> Iterator[Appliance]:
    """An appliance on that volume."""
    client = harness.client()
    networks = appliance.container.attrs["NetworkSettings"]["Networks"]
    container: Container = client.containers.create(
        appliance.image,
        environment={
            "POSTERN_HOSTNAME": "mail.example.test",
            "POSTERN_DOMAINS": "example.test",
            "POSTERN_SMTPROUTES": "elsewhere.test:elsewhere:25",
        },
        volumes={volume: {"bind": "/data", "mode": "rw"}},
        network=next(iter(networks)),
        ports={f"{port}/tcp": ("127.0.0.1", 0) for port in harness.PORTS.values()},
        cap_drop=["ALL"],
        cap_add=CAPABILITIES,
    )
    try:
        container.start()
        again = Appliance(container)
        again.wait_healthy()
        yield again
    finally:
        container.remove(force=True)
        client.close()


def home_of(account: Account) -> str:
    """Return the account's home in the container."""
    local, _, domain = account.address.partition("@")
    return f"/home/{domain}/{local}"


def bodies(at: Endpoint, account: Account, scratch: Path) -> list[bytes]:
    """Return the bodies of what is in the mailbox."""
    fetched = FETCHERS["poplib-implicit"](at, account, scratch)
    return sorted(mail.body_of(message) for message in fetched)


class Sender(threading.Thread):
    """Delivers messages, one after the other."""

    def __init__(self, at: Endpoint, account: Account, scratch: Path) -> None:
        super().__init__()
        self._arguments = (at, account, scratch)
        self.sent: list[mail.Message] = []
        self.error: Exception | None = None

    def run(self) -> None:
        at, account, scratch = self._arguments
        try:
            for _ in range(DELIVERIES):
                message = mail.compose(account.address, account.address)
                SUBMITTERS["smtplib-starttls"](at, account, message, account.address, scratch)
                self.sent.append(message)
        except Exception as error:
            self.error = error


def test_another_appliance_goes_on_from_a_backup(
    appliance: Appliance, at: Endpoint, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    alice, bob, there = appliance.add_account(), appliance.add_account(), elsewhere.add_account()
    filter_file = b"./Maildir/\n"
    assert (
        appliance.postern("user", "file", "put", alice.address, ".qmail", data=filter_file)[0] == 0
    )
    assert appliance.postern("alias", "add", "info@example.test", alice.address)[0] == 0
    uid = appliance.run(["stat", "-c", "%u", home_of(alice)])[1].strip()
    hole = ["truncate", "-s", str(HOLE), f"{home_of(alice)}/hole"]
    assert appliance.run(hole, user=f"{uid}:{uid}")[0] == 0
    before: list[mail.Message] = []
    for account in (alice, alice, bob):
        before.append(mail.compose(bob.address, account.address))
        SUBMITTERS["smtplib-starttls"](at, bob, before[-1], account.address, tmp_path)
    wait.until("mail of alice's", lambda: len(bodies(at, alice, tmp_path)) == 2)
    wait.until("mail of bob's", lambda: len(bodies(at, bob, tmp_path)) == 1)
    waiting = mail.compose(alice.address, there.address)
    deferrals = appliance.logs().count("deferral")
    try:
        assert elsewhere.run(["s6-svc", "-wd", "-d", f"{SERVICE}/mx"])[0] == 0
        SUBMITTERS["smtplib-starttls"](at, alice, waiting, there.address, tmp_path)
        wait.until("a deferral", lambda: appliance.logs().count("deferral") > deferrals)

        # Of what is sent meanwhile, everything that was there in time is in it.
        sender = Sender(at, bob, tmp_path)
        sender.start()
        wait.until(
            "a delivery", lambda: len(sender.sent) > 1, give_up=lambda: str(sender.error or "")
        )
        in_time = list(sender.sent)
        backup = postern(str(appliance.container.id), "backup")
        sender.join()
        assert sender.error is None
        assert (backup.status, backup.err) == (0, "")
        # The message is to leave from one place only.
        assert appliance.run(["s6-svc", "-wd", "-d", f"{SERVICE}/queue"])[0] == 0

        with fresh(appliance) as volume:
            short = restored(appliance, volume, backup.out[: len(backup.out) // 2])
            assert (short.status, short.out) == (1, b"")
            assert short.err.startswith("postern: the backup ends too early")
            done = restored(appliance, volume, backup.out)
            assert done == Run(0, b"restored\n", "")
            refused = restored(appliance, volume, backup.out)
            assert refused.status == 1
            assert "is not empty" in refused.err
            assert restored(appliance, volume, backup.out, "--replace").status == 0

            with running(appliance, volume) as again:
                for file in ("tls/key.pem", "srs/secrets"):
                    digest = ["sha256sum", f"/data/{file}"]
                    assert again.run(digest) == appliance.run(digest)
                there_now = again.endpoint
                found = bodies(there_now, alice, tmp_path)
                assert found == sorted(m.body for m in before[:2])
                found = bodies(there_now, bob, tmp_path)
                assert {m.body for m in (before[2], *in_time)} <= set(found)
                assert_goes_on(again, alice, tmp_path)
                refusing = restored(appliance, volume, backup.out, "--replace")
                assert "the appliance is running: stop it" in refusing.err

                elsewhere.run(["s6-svc", "-wU", "-u", f"{SERVICE}/mx"])

                def arrived() -> list[bytes]:
                    again.run(["s6-svc", "-a", f"{SERVICE}/queue"])
                    return bodies(elsewhere.endpoint, there, tmp_path)

                assert wait.until("the deferred message", arrived) == [waiting.body]
    finally:
        elsewhere.run(["s6-svc", "-wU", "-u", f"{SERVICE}/mx"])
        appliance.run(["s6-svc", "-wU", "-u", f"{SERVICE}/queue"])


def assert_goes_on(again: Appliance, alice: Account, scratch: Path) -> None:
    """Check that accounts, aliases and files are there, and that new mail arrives."""
    status, shown = again.postern("user", "file", "show", alice.address, ".qmail")
    assert (status, shown) == (0, "./Maildir/\n")
    uid = again.run(["stat", "-c", "%u", home_of(alice)])[1].strip()
    looking = ["stat", "-c", "%s %b", f"{home_of(alice)}/hole"]
    assert again.run(looking, user=uid)[1].split() == [str(HOLE), "0"]
    carol = again.add_account()  # with a uid that nobody has yet
    message = mail.compose(carol.address, "info@example.test")
    SUBMITTERS["smtplib-starttls"](again.endpoint, carol, message, "info@example.test", scratch)
    wait.until(
        "mail to the alias",
        lambda: message.body in bodies(again.endpoint, alice, scratch),
    )


def test_backup_is_not_written_to_a_terminal(appliance: Appliance) -> None:
    api: Any = harness.client().api
    made = api.exec_create(appliance.container.id, ["postern", "backup"], tty=True)
    printed = api.exec_start(made["Id"]).decode()
    assert printed.startswith("postern: not to a terminal")
    assert api.exec_inspect(made["Id"])["ExitCode"] == 100


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_it_explains_itself(appliance: Appliance, command: str) -> None:
    status, printed = appliance.postern(command, "--help")
    assert status == 0
    assert f"usage: postern {command}" in printed
    assert "exit status" in printed
