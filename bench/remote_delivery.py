"""How much CPU a remote delivery needs: qmail-rspawn, its children, and nothing else.

    python bench/remote_delivery.py [MESSAGES [AT_ONCE]]

A qmail-rspawn with a queue of one message of 2 KiB, and a server on this host that takes
everything. Prints a line for each of: all to one host, each to a host of its own; without
and with TLS. CPU is that of qmail-rspawn and all its children, less that of a run with one
message, which is mostly Python's start.
"""

import datetime
import os
import shutil
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pyqmail.send.spawnprotocol import ReportReader, Request, encode_request
from pyqmail.spawn import IDLE_SECONDS

MESSAGE = b"Subject: bench\n\n" + (b"x" * 63 + b"\n") * 32
PROGRAM = "/var/qmail/bin/qmail-rspawn"  # in the image; elsewhere, by -m ucspi


def make_certificate(path: str) -> None:
    """Write a self-signed certificate with its key to path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    builder = builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    made = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    with open(path, "wb") as file:
        file.write(made.public_bytes(pem))
        plain = serialization.NoEncryption()
        file.write(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


def serve(listener: socket.socket, context: ssl.SSLContext | None) -> None:
    """Take connections for ever, each in a thread."""
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=converse, args=(connection, context), daemon=True).start()


def converse(connection: socket.socket, context: ssl.SSLContext | None) -> None:
    """Be an SMTP server for one connection."""
    try:
        connection.sendall(b"220 bench\r\n")
        lines = connection.makefile("rb")
        in_data = False
        while line := lines.readline():
            verb = line[:4].upper()
            if in_data:
                in_data = line != b".\r\n"
                reply = b"" if in_data else b"250 ok\r\n"
            elif verb == b"DATA":
                in_data, reply = True, b"354 ok\r\n"
            elif verb == b"EHLO":
                more = b"250-STARTTLS\r\n" if context else b""
                reply = b"250-bench\r\n" + more + b"250-SIZE 9999999\r\n250 PIPELINING\r\n"
            elif verb == b"STAR" and context:
                connection.sendall(b"220 ok\r\n")
                connection = context.wrap_socket(connection, server_side=True)
                lines, context, reply = connection.makefile("rb"), None, b""
            else:
                reply = b"250 ok\r\n"
            if reply:
                connection.sendall(reply)
    except OSError:
        pass
    finally:
        connection.close()


def start_server(certificate: str) -> tuple[int, int]:
    """Start a server; return its process id and its port. An empty certificate: no TLS."""
    listener = socket.create_server(("0.0.0.0", 0), backlog=500)
    pid = os.fork()
    if not pid:
        context = None
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        serve(listener, context)
    port: int = listener.getsockname()[1]
    listener.close()
    return pid, port


def start_rspawn(home: str) -> tuple[int, int, int]:
    """Start qmail-rspawn; return its process id and our ends of its two pipes."""
    request_read, requests = os.pipe()
    reports, report_write = os.pipe()
    env = {"QMAIL_HOME": home, "PATH": os.defpath}
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    argv = [sys.executable, "-m", "ucspi", "qmail-rspawn"]
    if os.path.exists(PROGRAM):
        argv = [PROGRAM]
    null = os.open(os.devnull, os.O_WRONLY)
    actions = [
        (os.POSIX_SPAWN_DUP2, ours, wanted)
        for wanted, ours in enumerate((request_read, report_write, null))
    ]
    pid = os.posix_spawn(argv[0], argv, env, file_actions=actions)
    for descriptor in (request_read, report_write, null):
        os.close(descriptor)
    return pid, requests, reports


def deliver(home: str, port: int, messages: int, at_once: int, own_hosts: bool) -> float:
    """Have messages delivered and return the CPU seconds that it took."""
    with open(home + "/control/smtproutes", "w") as routes:
        for number in range(messages):
            host = f"127.1.{number // 250}.{number % 250 + 1}" if own_hosts else "127.0.0.1"
            routes.write(f"d{number}.example:{host}:{port}\n")
    pid, requests, reports = start_rspawn(home)
    reader = ReportReader()
    free = list(range(at_once))
    asked = done = 0
    while done < messages:
        while free and asked < messages:
            address = b"joe@d%d.example" % asked
            os.write(requests, encode_request(Request(free.pop(), b"1/1", b"sam@x", address)))
            asked += 1
        for report in reader.feed(os.read(reports, 65536)):
            if report.text[:1] != b"K":
                sys.exit(f"not delivered: {report.text!r}")
            free.append(report.delivery)
            done += 1
    time.sleep(IDLE_SECONDS + 0.5)  # for the last children, whose CPU counts once they ended
    os.close(requests)
    os.close(reports)
    used = os.wait4(pid, 0)[2]
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run the benchmark."""
    messages, at_once = (*map(int, sys.argv[1:]), *(500, 20)[len(sys.argv) - 1 :])
    home = tempfile.mkdtemp(prefix="bench-remote-")
    for name in ("control", "queue/mess/1", "queue/lock"):
        os.makedirs(f"{home}/{name}")
    for name, content in (
        ("control/me", b"bench.example.org\n"),
        ("queue/mess/1/1", MESSAGE),
        ("queue/lock/tcpto", bytes(1024)),
    ):
        with open(f"{home}/{name}", "wb") as file:
            file.write(content)
    make_certificate(home + "/certificate.pem")
    try:
        for certificate in ("", home + "/certificate.pem"):
            server, port = start_server(certificate)
            try:
                start = deliver(home, port, 1, 1, False)
                for own_hosts in (False, True):
                    used = deliver(home, port, messages, at_once, own_hosts) - start
                    print(
                        f"{messages} messages, {at_once} at once, "
                        f"{'a host for each' if own_hosts else 'one host'}, "
                        f"{'TLS' if certificate else 'no TLS'}: "
                        f"CPU {1000 * used / messages:.2f} ms per message"
                    )
            finally:
                os.kill(server, signal.SIGKILL)
                os.waitpid(server, 0)
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
