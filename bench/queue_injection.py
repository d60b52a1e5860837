"""How much CPU and time the queue server needs per message.

    python bench/queue_injection.py [MESSAGES [CLIENTS [BYTES]]]

A queue in a temporary directory (TMPDIR: choose a disk, not a tmpfs), a server of its
own, CLIENTS processes that inject MESSAGES in all. Prints one line; CPU is the server's,
from /proc.
"""

import os
import shutil
import signal
import sys
import tempfile
import time

from pyqmail.queue import client, ids, layout


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process so far."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_server(env: dict[str, str]) -> int:
    """Start a queue server and wait until it listens."""
    ready, notify = os.pipe()
    os.set_inheritable(notify, True)
    argv = [sys.executable, "-m", "ucspi", "qmail-queue-server", "-n", str(notify)]
    pid = os.posix_spawn(argv[0], [*argv, env["QMAIL_QUEUE_SOCKET"]], env)
    os.close(notify)
    if os.read(ready, 1) != b"\n":
        sys.exit("the server did not start")
    os.close(ready)
    return pid


def inject(env: dict[str, str], count: int, message: bytes) -> list[float]:
    """Inject count messages one after the other and return how long each took."""
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        injection = client.open_queue(env)
        injection.write(message)
        result = injection.finish(b"joe@example.org", [b"ann@example.net"])
        if result.status:
            sys.exit(f"refused with status {result.status}")
        times.append(time.perf_counter() - begin)
    return times


def main() -> None:
    """Run the benchmark."""
    messages, clients, size = (
        *map(int, sys.argv[1:]),
        *(2000, 8, 2048)[len(sys.argv) - 1 :],
    )
    home = tempfile.mkdtemp(prefix="bench-queue-")
    os.chmod(home, 0o755)
    layout.prepare(home + "/queue", ids.lookup())
    env = dict(os.environ) | {"QMAIL_HOME": home, "QMAIL_QUEUE_SOCKET": home + "/queue.sock"}
    env.pop("QMAILQUEUE", None)
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    pid = start_server(env)
    try:
        message = b"Subject: bench\n\n" + b"x" * (size - 17) + b"\n"
        inject(env, 20, message)  # warm up
        cpu, begin = cpu_seconds(pid), time.perf_counter()
        children = []
        for _ in range(clients):
            read, write = os.pipe()
            child = os.fork()
            if not child:
                times = sorted(inject(env, messages // clients, message))
                os.write(write, b"%f" % times[len(times) // 2])
                os._exit(0)
            os.close(write)
            children.append((child, read))
        medians = [float(os.read(read, 100)) for _, read in children]
        for child, _ in children:
            os.waitpid(child, 0)
        wall = time.perf_counter() - begin
        used = cpu_seconds(pid) - cpu
        done = messages // clients * clients
        print(
            f"{done} messages of {size} bytes, {clients} clients: {done / wall:.0f}/s, "
            f"median {1000 * sorted(medians)[clients // 2]:.1f} ms, "
            f"server CPU {1000 * used / done:.2f} ms per message"
        )
    finally:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
