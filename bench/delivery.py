"""Measure injection and local delivery: CPU per message, and messages a second.

    .venv/bin/python bench/delivery.py [--messages 1000] [--clients 8] [--rounds 3] [--image ...]

A container of the appliance, its queue and mailboxes on a volume (fsync on). Programs in it
hand messages of 2 KiB to the queue, several at a time, for one account. CPU is that of
the container's cgroup without the clients', who are timed by themselves; a rate is
messages over the time from the first injection to the last message in the Maildir.
"""

import argparse
import json
import secrets
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import docker
from run import start_postern

DOMAIN = "example.test"

# Runs in the container: injects, and prints the processor seconds that took.
CLIENT = """
import json, os, sys
sys.path.insert(0, "/usr/lib/postern")
from pyqmail.queue import client
count, clients, size = map(int, sys.argv[1:4])
recipient = sys.argv[4].encode()
message = b"Subject: bench\\n\\n" + (b"x" * 70 + b"\\n") * (size // 71)
for number in range(clients):
    if not os.fork():
        for _ in range(count // clients):
            injection = client.open_queue({})
            injection.write(message)
            result = injection.finish(b"sender@example.test", [recipient])
            if result.status:
                os._exit(1)
        os._exit(0)
failed = sum(os.wait()[1] != 0 for _ in range(clients))
used = os.times()
print(json.dumps([used.children_user + used.children_system + used.user + used.system, failed]))
"""

# Runs in the container as the user: waits for so many messages, and prints when they were
# there, and the processor seconds that waiting took.
WATCH = """
import json, os, sys, time
while len(os.listdir("Maildir/new")) < int(sys.argv[1]):
    time.sleep(0.05)
used = os.times()
print(json.dumps([time.monotonic(), used.user + used.system]))
"""


def main() -> None:
    """Run the bench and print a line for each round, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--concurrency", type=int, default=10)
    parser.add_argument("--image", default="postern:latest")
    options = parser.parse_args()
    client = docker.from_env(timeout=300)
    server = start_postern(
        client,
        options.image,
        secrets.token_urlsafe(12),
        {"POSTERN_CONCURRENCY_LOCAL": str(options.concurrency)},
    )
    container = server.container

    def run(text: str, user: str, *words: str) -> list[float]:
        command = ["python3", "-IS", "-c", text, *words]
        done = container.exec_run(command, user=user, workdir=f"/home/{DOMAIN}/demo")
        if done.exit_code:
            sys.exit(f"bench: {done.output.decode()}")
        return list(json.loads(done.output))

    costs, rates = [], []
    there = 0
    try:
        run(WATCH, "20000:20000", str(there))
        for _ in range(options.rounds):
            there += options.messages // options.clients * options.clients
            before = server.settle()
            begin = time.monotonic()
            counts = map(str, (options.messages, options.clients, options.size))
            with ThreadPoolExecutor() as pool:
                watched = pool.submit(run, WATCH, "20000:20000", str(there))
                used, failed = run(CLIENT, "7791:2108", *counts, f"demo@{DOMAIN}")
                if failed:
                    sys.exit("bench: messages were refused")
                end, watching = watched.result()
            cpu = server.settle() - before - used - watching
            number = options.messages // options.clients * options.clients
            costs.append(cpu * 1000 / number)
            rates.append(number / (end - begin))
            print(f"{costs[-1]:.2f} ms CPU per message, {rates[-1]:.0f} messages/s", flush=True)
    finally:
        container.remove(force=True, v=True)
    print(
        f"medians: {statistics.median(costs):.2f} ms CPU per message, "
        f"{statistics.median(rates):.0f} messages/s"
    )


if __name__ == "__main__":
    main()
