"""Domains elsewhere, in one container: their DNS, policy hosts and mail exchangers.

It runs by itself, from this file's text, with a description in JSON as its one argument:

    records   [[name, type, [record, ...]], ...]; ``@`` is the container's own address
    policies  host name -> MTA-STS policy
    keys      host name -> PEM of key, certificate and chain, chosen by SNI; ``""`` without

Every answer of the DNS claims to be validated. Each SMTP connection is printed when it
ends: the name that the client said in TLS, and all that it sent, in hex.
"""

import http.server
import json
import socket
import socketserver
import ssl
import sys
import tempfile
import threading
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

WORLD: dict[str, Any] = {}
CONTEXTS: dict[str, ssl.SSLContext] = {}


class Names(socketserver.BaseRequestHandler):
    """A DNS server for the names that are listed."""

    def handle(self) -> None:
        wire, server = self.request
        query = dns.message.from_wire(wire)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AD
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        mine = [entry for entry in WORLD["records"] if entry[0] == name]
        for _, kind, records in mine:
            if kind == question.rdtype.name:
                own = [record.replace("@", address()) for record in records]
                response.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *own))
        if not mine:
            response.set_rcode(dns.rcode.NXDOMAIN)
        server.sendto(response.to_wire(), self.client_address)


def address() -> str:
    """Return the container's own address."""
    return socket.gethostbyname(socket.gethostname())


class Policies(http.server.BaseHTTPRequestHandler):
    """A web server for policies."""

    def do_GET(self) -> None:
        text = WORLD["policies"].get(self.headers["Host"], "").encode()
        self.send_response(200 if text and self.path == "/.well-known/mta-sts.txt" else 404)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Standard output is for the mail."""


class Mail(socketserver.StreamRequestHandler):
    """A mail exchanger that offers STARTTLS and takes everything."""

    recorded = b""
    name = ""

    def handle(self) -> None:
        self.connection.settimeout(30)
        self.wfile.write(b"220 elsewhere ESMTP\r\n")
        secure = False
        while line := self.rfile.readline():
            self.recorded += line
            verb = line[:4].upper()
            if verb == b"EHLO":
                more = b"" if secure else b"250-STARTTLS\r\n"
                self.wfile.write(
                    b"250-elsewhere\r\n250-PIPELINING\r\n" + more + b"250 8BITMIME\r\n"
                )
            elif verb == b"STAR":
                self.wfile.write(b"220 go ahead\r\n")
                if not self.start_tls():
                    break
                secure = True
            elif verb == b"DATA":
                self.wfile.write(b"354 go ahead\r\n")
                while (line := self.rfile.readline()) not in (b".\r\n", b""):
                    self.recorded += line
                self.recorded += line
                self.wfile.write(b"250 ok\r\n")
            elif verb == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                break
            else:
                self.wfile.write(b"250 ok\r\n")

    def start_tls(self) -> bool:
        def note(inside: ssl.SSLSocket, name: str | None, _: object) -> None:
            self.name = name or ""
            inside.context = CONTEXTS.get(self.name, CONTEXTS[""])

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = note  # type: ignore[assignment]
        try:
            self.connection = context.wrap_socket(self.connection, server_side=True)
        except OSError:
            return False
        self.connection.settimeout(30)
        self.rfile = self.connection.makefile("rb")
        self.wfile = socketserver._SocketWriter(self.connection)  # type: ignore[attr-defined]
        return True

    def finish(self) -> None:
        print(json.dumps([self.name, self.recorded.hex()]), flush=True)
        self.connection.close()


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True


def context(pem: str) -> ssl.SSLContext:
    """Return a server's context for a key and its certificates."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(pem)
        file.flush()
        made.load_cert_chain(file.name)
    return made


def main() -> None:
    """Serve for ever."""
    WORLD.update(json.loads(sys.argv[1]))
    CONTEXTS.update((name, context(pem)) for name, pem in WORLD["keys"].items())
    web = Server(("0.0.0.0", 443), Policies)
    at_the_web = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def choose(inside: ssl.SSLSocket, name: str | None, _: object) -> None:
        inside.context = CONTEXTS.get(name or "", CONTEXTS[""])

    at_the_web.sni_callback = choose  # type: ignore[assignment]
    web.socket = at_the_web.wrap_socket(web.socket, server_side=True)
    names = socketserver.ThreadingUDPServer(("0.0.0.0", 53), Names)
    for server in (web, names, Server(("0.0.0.0", 25), Mail)):
        threading.Thread(target=server.serve_forever).start()
    print(json.dumps(["ready", ""]), flush=True)


if __name__ == "__main__":
    main()
