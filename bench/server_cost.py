"""CPU per connection of acceptserver, from a control group of its own.

    python bench/server_cost.py [--python /usr/bin/python3] [--count 300] [prog args ...]

Run as root: a control group counts what every process of the server used, also those
that nobody waits for. Without a program a banner and QUIT in process stand for one.
One line per case: milliseconds of CPU per connection (server side only), medians of rounds.
"""

import argparse
import contextlib
import os
import select
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
ROUNDS = 5

BANNER = """
import os
from acceptutils import ucspitls
def main(argv, env):
    os.write(1, b"220 ready\\r\\n")
    while line := os.read(0, 4096):
        if line.startswith(b"STARTTLS"):
            ucspitls.take_availability(env)
            os.write(1, b"220 go\\r\\n")
            ucspitls.start(env)
        elif line.startswith(b"QUIT"):
            os.write(1, b"221 bye\\r\\n")
            return 0
        else:
            os.write(1, b"250 ok\\r\\n")
    return 0
"""

LAUNCH = """
import os, sys
sys.path[:0] = [{directory!r}, {repository!r}]
from ucspi import chain
os._exit(chain.run(["acceptserver", *sys.argv[1:]], dict(os.environ)))
"""


class Group:
    """A control group (version 1 or 2) that counts CPU time."""

    def __init__(self) -> None:
        name = f"server-cost-{os.getpid()}"
        for root, counter, unit in (
            (Path("/sys/fs/cgroup/cpuacct"), "cpuacct.usage", 1e-6),
            (Path("/sys/fs/cgroup"), "cpu.stat", 1e-3),
        ):
            if (root / "cgroup.procs").exists():
                self.path, self._counter, self._unit = root / name, counter, unit
                self.path.mkdir()
                return
        raise SystemExit("no control group that counts CPU time")

    def milliseconds(self) -> float:
        """CPU used so far."""
        text = (self.path / self._counter).read_text().split()
        return float(text[0] if len(text) == 1 else text[1]) * self._unit

    @property
    def entered(self) -> list[str]:
        """The beginning of a command line that is to run in the group."""
        return ["sh", "-c", f'echo $$ >{self.path}/cgroup.procs; exec "$@"', "sh"]

    def remove(self) -> None:
        """Wait until its last process is gone, and remove it."""
        for _ in range(500):
            with contextlib.suppress(OSError):
                self.path.rmdir()
                return
            time.sleep(0.01)


@contextlib.contextmanager
def server(
    python: str, directory: Path, options: list[str], program: list[str]
) -> Iterator[tuple[int, Group, "subprocess.Popen[bytes]"]]:
    """Run acceptserver in a group of its own."""
    ready_read, ready_write = os.pipe()
    group = Group()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (directory / "launch").write_text(
        LAUNCH.format(directory=str(directory), repository=str(REPOSITORY))
    )
    words = [*options, "-n", str(ready_write), "127.0.0.1", str(port), *program]
    env = {
        "PATH": os.environ["PATH"],
        "CERTFILE": str(directory / "cert.pem"),
        "KEYFILE": str(directory / "key.pem"),
        "TLS_UID": "7801",
        "TLS_GID": "7801",
    }
    process = subprocess.Popen(
        [*group.entered, python, "-IS", str(directory / "launch"), *words],
        env=env,
        pass_fds=[ready_write],
        stderr=(directory / "log").open("ab"),
    )
    os.close(ready_write)
    if not select.select([ready_read], [], [], 20)[0] or not os.read(ready_read, 1):
        raise SystemExit((directory / "log").read_text())
    try:
        yield port, group, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        os.close(ready_read)
        group.remove()


def dialogue(port: int, tls: str, context: ssl.SSLContext) -> None:
    """Connect, read the banner, start TLS as told, QUIT, read to the end."""
    client = socket.create_connection(("127.0.0.1", port))
    if tls == "implicit":
        client = context.wrap_socket(client)
    client.recv(4096)
    if tls == "starttls":
        client.sendall(b"STARTTLS\r\n")
        client.recv(4096)
        client = context.wrap_socket(client)
    client.sendall(b"QUIT\r\n")
    while client.recv(4096):
        pass
    client.close()


def measure(count: int, group: Group, one: Callable[[], None]) -> tuple[float, float]:
    """Return the median CPU and wall time of one, in milliseconds."""
    one()
    costs, times = [], []
    for _ in range(ROUNDS):
        before, start = group.milliseconds(), time.perf_counter()
        for _ in range(count // ROUNDS):
            one()
        times.append((time.perf_counter() - start) * 1000 / (count // ROUNDS))
        time.sleep(0.05)  # the last processes end
        costs.append((group.milliseconds() - before) / (count // ROUNDS))
    return statistics.median(costs), statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("program", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        metadata = directory / "banner-1.dist-info"
        metadata.mkdir()
        (metadata / "entry_points.txt").write_text(
            "[acceptutils.programs]\nbench-banner = bench_banner:main\n"
        )
        (directory / "bench_banner.py").write_text(BANNER)
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
            + ["-nodes", "-subj", "/CN=bench", "-days", "2"]
            + ["-keyout", directory / "key.pem", "-out", directory / "cert.pem"],
            check=True,
            capture_output=True,
        )
        program = arguments.program or ["bench-banner"]
        for label, options, tls in (
            ("plain, no TLS offered", [], ""),
            ("plain, quiet", ["-q"], ""),
            ("plain, dropped to a user", ["-u", "7791", "-g", "2108"], ""),
            ("plain, STARTTLS offered", ["-t"], ""),
            ("STARTTLS", ["-t"], "starttls"),
            ("implicit TLS", ["-T"], "implicit"),
        ):
            with server(arguments.python, directory, options, program) as (port, group, process):
                cost, wall = measure(
                    arguments.count, group, lambda port=port, tls=tls: dialogue(port, tls, context)
                )
                status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                memory = next(line.split()[1] for line in status if line.startswith("VmRSS"))
            print(f"{label:28} {cost:6.2f} ms CPU {wall:7.2f} ms wall   M {memory} KiB")


if __name__ == "__main__":
    main()
