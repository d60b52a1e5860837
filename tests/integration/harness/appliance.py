"""A running appliance, seen from outside (its ports) and from the host (its processes)."""

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import docker
from docker.models.containers import Container

from harness import wait
from harness.clients import Account, Endpoint

PORTS = {"mx": 25, "submission": 587, "submissions": 465, "pop3": 110, "pop3s": 995}


class Process(NamedTuple):
    """One process of the container, by its number on the host."""

    pid: int
    ppid: int
    uid: int
    command: str

    @property
    def folder(self) -> Path:
        """Its folder in the host's /proc."""
        return Path("/proc") / str(self.pid)

    def alive(self) -> bool:
        """Say whether it still runs; a zombie does not."""
        try:
            return " Z " not in (self.folder / "stat").read_text().rpartition(")")[2][:4]
        except FileNotFoundError:
            return False


class Appliance:
    """The container, its published ports, and the postern command inside it."""

    def __init__(self, container: Container, host: str = "127.0.0.1") -> None:
        self.container = container
        self.host = host

    @property
    def endpoint(self) -> Endpoint:
        """The published ports by service; they change when the container is restarted."""
        self.container.reload()
        published = self.container.ports
        return Endpoint(
            self.host,
            {
                name: int(bindings[0]["HostPort"])
                for name, port in PORTS.items()
                if (bindings := published.get(f"{port}/tcp"))
            },
        )

    @property
    def address(self) -> str:
        """The container's own address on its first network."""
        self.container.reload()
        networks = self.container.attrs["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    def logs(self, *, tail: int | Literal["all"] = "all") -> str:
        """Return what the container has logged."""
        return self.container.logs(tail=tail).decode("utf-8", "replace")

    def postern(self, *words: str, data: bytes = b"") -> tuple[int, str]:
        """Run the postern command inside with data on its standard input."""
        return self.run(["postern", *words], data=data)

    def run(self, argv: list[str], *, data: bytes = b"", user: str = "") -> tuple[int, str]:
        """Run a command inside; return its exit status and all that it printed."""
        api: Any = client().api
        made = api.exec_create(self.container.id, argv, stdin=True, user=user)
        stream = api.exec_start(made["Id"], socket=True)
        raw: socket.socket = stream._sock
        raw.settimeout(60)
        with stream:
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            printed = b"".join(_frames(raw))
        status = wait.until(
            f"the exit status of {argv}",
            lambda: (
                [api.exec_inspect(made["Id"])["ExitCode"]]
                if api.exec_inspect(made["Id"])["ExitCode"] is not None
                else None
            ),
        )
        return status[0], printed.decode("utf-8", "replace")

    def add_account(self, address: str = "") -> Account:
        """Make an account with a random password, under a random name unless one is given."""
        # Not with a dash in front: swaks would take it for an option.
        password = "p" + secrets.token_urlsafe(18)
        account = Account(address or f"u{secrets.token_hex(5)}@{self.domain}", password)
        status, printed = self.postern(
            "user", "add", account.address, data=account.password.encode() + b"\n"
        )
        assert status == 0, printed
        return account

    @property
    def image(self) -> str:
        """The name of the image that the container runs."""
        return str(self.container.attrs["Config"]["Image"])

    @property
    def domain(self) -> str:
        """The domain that the tests' accounts are in."""
        return "example.test"

    def processes(self) -> list[Process]:
        """Return the container's processes as the host sees them."""
        top = self.container.top(ps_args="-eo pid,ppid,uid,args")
        return [
            Process(int(row[0]), int(row[1]), int(row[2]), row[3]) for row in top["Processes"] or []
        ]

    def processes_of(self, service: str) -> list[Process]:
        """Return the processes below the supervisor of one service, its own child first."""
        everything = self.processes()
        found = [p for p in everything if p.command.split()[:2] == ["s6-supervise", service]]
        assert found, f"no supervisor for {service}: {everything}"
        family, result = {found[0].pid}, []
        grown = True
        while grown:
            fresh = [p for p in everything if p.ppid in family and p.pid not in family]
            family |= {p.pid for p in fresh}
            result += fresh
            grown = bool(fresh)
        return result

    def healthy(self) -> bool:
        """Say whether every part answers, by the appliance's own health command."""
        return self.postern("health")[0] == 0

    def wait_healthy(self, seconds: float = 60) -> None:
        """Wait until every part answers; give up when the container ended."""
        wait.until(
            "a healthy appliance", self.healthy, seconds=seconds, give_up=self._why_it_cannot
        )

    def _why_it_cannot(self) -> str | None:
        self.container.reload()
        if self.container.status == "running":
            return None
        return f"the container is {self.container.status}\n{self.logs(tail=40)}"


def _frames(raw: socket.socket) -> Iterator[bytes]:
    """Yield the payloads of Docker's multiplexed exec stream (stdout and stderr as they come)."""
    buffer = b""
    while chunk := raw.recv(65536):
        buffer += chunk
        while len(buffer) >= 8:
            size = int.from_bytes(buffer[4:8], "big")
            if len(buffer) < 8 + size:
                break
            yield buffer[8 : 8 + size]
            buffer = buffer[8 + size :]


def client() -> docker.DockerClient:
    """Return a Docker client for the engine that the environment names."""
    return docker.from_env(timeout=120)
