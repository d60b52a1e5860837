"""A DNS server for a few names, which answers what a test tells it to.

It also runs by itself in a container, from this file's text:
``ADDRESS PORT NAME=TYPE=RECORD ...``.
"""

import socket
import sys
import threading
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

Reaction = Callable[[bytes], list[bytes]]


class Dns:
    """A server for a few names. What it has no record of does not exist."""

    def __init__(self, address: str, port: int) -> None:
        self.asked: list[tuple[str, str]] = []
        self.records: dict[tuple[str, str], list[str]] = {}
        self.reaction: Reaction = self.answer
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, port))
        self.address, self.port = self.socket.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def add(self, name: str, kind: str, *records: str) -> None:
        """Let a name have records, as they stand in a zone file."""
        self.records[name, kind] = list(records)

    def list_address(self, name: str, code: str = "127.0.0.2", text: str = "") -> None:
        """Let a name be listed."""
        self.add(name, "A", code)
        if text:
            self.add(name, "TXT", f'"{text}"')

    def answer(self, wire: bytes, rcode: dns.rcode.Rcode | None = None) -> list[bytes]:
        """Return what a server says that does its duty, or one that says rcode."""
        query = dns.message.from_wire(wire)
        response = dns.message.make_response(query)
        question = query.question[0]
        kind = question.rdtype.name
        records = self.records.get((question.name.to_text(omit_final_dot=True), kind))
        if rcode is not None:
            response.set_rcode(rcode)
        elif records:
            response.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *records))
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return [response.to_wire()]

    def close(self) -> None:
        """End."""
        self.socket.sendto(b"", (self.address, self.port))
        self._thread.join()
        self.socket.close()

    def _serve(self) -> None:
        while True:
            wire, client = self.socket.recvfrom(65535)
            if not wire:
                return
            question = dns.message.from_wire(wire).question[0]
            self.asked.append((question.name.to_text(omit_final_dot=True), question.rdtype.name))
            for reply in self.reaction(wire):
                self.socket.sendto(reply, client)


if __name__ == "__main__":
    server = Dns(sys.argv[1], int(sys.argv[2]))
    for word in sys.argv[3:]:
        server.add(*word.split("=", 2))
    threading.Event().wait()
