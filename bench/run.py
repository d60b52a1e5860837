"""Measure what a session costs, beside Postfix and Dovecot, in one run.

    .venv/bin/python bench/run.py [--rounds 5] [--sessions 60] [NAME ...]

Both servers run in containers of the same base, on one machine, with one account each.
For every kind of session (see sessions.py) each round drives both, in turn, with so many
sessions, four at a time, and reads the CPU time that the container's cgroup has used, up
to the moment when nothing moves any more: so deliveries are included. Reported is the
median of the rounds, per session, and the ratio. Nothing here is a test.
"""

import argparse
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import docker
from sessions import SESSIONS, Target

HERE = Path(__file__).parent
PORTS = {"mx": 25, "submission": 587, "submissions": 465, "pop3": 110, "pop3s": 995}
CONCURRENCY = 4
DOMAIN = "example.test"
CAPABILITIES = ["CHOWN", "SETUID", "SETGID", "NET_BIND_SERVICE", "KILL"]


class Server(NamedTuple):
    """A container under measurement."""

    name: str
    container: Any
    target: Target

    def cpu(self) -> float:
        """Return the CPU seconds that the container has used so far."""
        stats = self.container.client.api.stats(
            self.container.id, stream=False, decode=False, one_shot=True
        )
        return float(stats["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9

    def settle(self, seconds: float = 30) -> float:
        """Wait until the container is idle, and return the CPU seconds used so far."""
        end = time.monotonic() + seconds
        used = self.cpu()
        while time.monotonic() < end:
            time.sleep(0.5)
            now = self.cpu()
            if now - used < 0.005:
                return now
            used = now
        return used


def published(container: Any) -> dict[str, int]:
    """Return the host's ports by service."""
    container.reload()
    return {
        name: int(container.ports[f"{port}/tcp"][0]["HostPort"]) for name, port in PORTS.items()
    }


def wait_for(what: str, ready: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until ready() is true; end the programme after a deadline."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            sys.exit(f"bench: {what}: not within {seconds:g} seconds")
        time.sleep(0.2)


def answers(target: Target) -> bool:
    """Say whether a whole submission and a whole fetch work."""
    try:
        SESSIONS["submissions"](target)
        SESSIONS["pop3s"](target)
    except Exception:  # whatever a starting server does to a client
        return False
    return True


def start_postern(
    client: Any, image: str, password: str, settings: dict[str, str] | None = None
) -> Server:
    """Start the appliance with an account, and with more settings than it needs."""
    container = client.containers.run(
        image,
        detach=True,
        environment={
            "POSTERN_HOSTNAME": f"mail.{DOMAIN}",
            "POSTERN_DOMAINS": DOMAIN,
            **(settings or {}),
        },
        ports={f"{port}/tcp": ("127.0.0.1", 0) for port in PORTS.values()},
        cap_drop=["ALL"],
        cap_add=CAPABILITIES,
    )
    wait_for("the appliance", lambda: container.exec_run(["postern", "health"]).exit_code == 0)
    address = f"demo@{DOMAIN}"
    subprocess.run(
        ["docker", "exec", "-i", container.id, "postern", "user", "add", address],
        input=password.encode() + b"\n",
        check=True,
        stdout=subprocess.DEVNULL,
    )
    target = Target(published(container), address, address, password)
    return Server("Postern", container, target)


def start_peer(client: Any, base: str, password: str) -> Server:
    """Build and start Postfix with Dovecot."""
    print(f"bench: building the peers on {base}", flush=True)
    image, _ = client.images.build(
        path=str(HERE / "peers"), buildargs={"BASE_IMAGE": base}, tag="postern-bench-peers"
    )
    container = client.containers.run(
        image,
        detach=True,
        environment={"PASSWORD": password},
        ports={f"{port}/tcp": ("127.0.0.1", 0) for port in PORTS.values()},
    )
    target = Target(published(container), "demo", f"demo@{DOMAIN}", password)
    return Server("Postfix + Dovecot", container, target)


def measure(server: Server, name: str, sessions: int) -> float:
    """Return the CPU milliseconds of one session of that name."""
    before = server.settle()
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        # POP3 locks a mailbox in Dovecot: one session at a time for both.
        workers = 1 if name.startswith("pop3") else CONCURRENCY
        chunks = [sessions // workers] * workers
        list(pool.map(lambda n: [SESSIONS[name](server.target) for _ in range(n)], chunks))
    return (server.settle() - before) * 1000 / sum(chunks)


def main() -> None:
    """Run the bench and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=60)
    parser.add_argument("--image", default="postern:latest")
    parser.add_argument("--base", default="postern-base:trixie")
    parser.add_argument("names", nargs="*", default=list(SESSIONS))
    options = parser.parse_args()
    client = docker.from_env(timeout=300)
    password = secrets.token_urlsafe(12)
    servers: list[Server] = []
    try:
        servers.append(start_postern(client, options.image, password))
        servers.append(start_peer(client, options.base, password))
        for server in servers:
            wait_for(server.name, lambda server=server: answers(server.target))  # type: ignore[misc]
        print("\n| session | " + " | ".join(f"{s.name}, ms" for s in servers) + " | ratio |")
        print("|---|---|---|---|")
        for name in options.names:
            sessions = 8 if name.endswith("large") else options.sessions
            found: dict[str, list[float]] = {server.name: [] for server in servers}
            for _ in range(options.rounds):
                for server in servers:
                    found[server.name].append(measure(server, name, sessions))
            ours, theirs = (statistics.median(values) for values in found.values())
            print(f"| {name} | {ours:.2f} | {theirs:.2f} | {ours / theirs:.2f} |", flush=True)
    finally:
        for server in servers:
            server.container.remove(force=True, v=True)


if __name__ == "__main__":
    main()
