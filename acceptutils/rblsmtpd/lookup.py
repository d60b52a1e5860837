"""Ask the DNS many questions at once: one UDP socket, one bounded time, no thread.

Loading dnspython takes longer than everything else here. In a server that forks it is
loaded once, because the module of a program is loaded before any connection comes.
"""

import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

# Found by name at their first use: here, it is before the fork.
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.OPT
import dns.rdtypes.ANY.TXT
import dns.rdtypes.IN.A

from acceptutils.rblsmtpd.lists import Question, Records

PORT = 53
ATTEMPTS = (1.5, 2.5, 4.0)  # seconds each, of the servers in turn
PAYLOAD = 1232  # bytes; what gets through everywhere in one piece
RESOLV_CONF = "/etc/resolv.conf"
MOST_SERVERS = 16

Answers = dict[Question, Records]


def servers(env: dict[str, str]) -> list[str]:
    """Return the addresses of DNS caches: of DNSCACHEIP, else of resolv.conf, else this host."""
    if listed := env.get("DNSCACHEIP", "").split():
        return listed[:MOST_SERVERS]
    found = []
    try:
        with open(RESOLV_CONF, encoding="ascii", errors="replace") as file:
            for line in file:
                words = line.split()
                if words[:1] == ["nameserver"] and words[1:]:
                    found.append(words[1])
    except OSError:
        pass
    return found[:MOST_SERVERS] or ["127.0.0.1"]


def ask(
    wanted: Sequence[Question], caches: Sequence[str], enough: Callable[[Answers], bool]
) -> Answers:
    """Ask all questions at once, and again those that got no answer.

    Args:
        wanted: the questions.
        caches: addresses of DNS servers that answer for others.
        enough: whether the answers so far will do; asked after each of them.

    Returns:
        The answers that came. Records in words; None for a server that could not say.
    """
    answers: Answers = {}
    for number, seconds in enumerate(ATTEMPTS):
        open_ones = [question for question in wanted if answers.get(question) is None]
        if not open_ones or enough(answers):
            break
        try:
            _ask_once(open_ones, caches[number % len(caches)], seconds, answers, enough)
        except OSError:
            continue  # nobody there: the next one, at once
    return answers


def _ask_once(
    wanted: Sequence[Question],
    cache: str,
    seconds: float,
    answers: Answers,
    enough: Callable[[Answers], bool],
) -> None:
    """Ask one server, and put what it says into answers, until it has said it all.

    Raises:
        OSError: the server cannot be asked.
    """
    deadline = time.monotonic() + seconds
    family, kind, _, _, place = socket.getaddrinfo(
        cache, PORT, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
    )[0]
    with socket.socket(family, kind) as client:
        client.connect(place)  # so that only this server is heard
        sent: dict[int, tuple[Question, dns.message.Message]] = {}
        for question in wanted:
            query = _query(question, sent.keys())
            sent[query.id] = question, query
            client.send(query.to_wire())
        poller = select.poll()
        poller.register(client, select.POLLIN)
        while sent and not enough(answers):
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                return
            _take(client.recv(65535), sent, answers)


def _query(question: Question, used: object) -> dns.message.Message:
    query = dns.message.make_query(question.name, question.kind, use_edns=0, payload=PAYLOAD)
    # Not dnspython's own number: it comes from a state that the fork has copied.
    query.id = int.from_bytes(os.urandom(2), "big")
    while query.id in used:  # type: ignore[operator]
        query.id = int.from_bytes(os.urandom(2), "big")
    return query


def _take(
    wire: bytes, sent: dict[int, tuple[Question, dns.message.Message]], answers: Answers
) -> None:
    """Note the answer in wire, if it is one to something that was asked."""
    try:
        response = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return
    question, query = sent.get(response.id, (None, None))
    if question is None or query is None or not query.is_response(response):
        return
    del sent[response.id]
    answers[question] = _records(response, dns.rdatatype.from_text(question.kind))


def _records(response: dns.message.Message, kind: dns.rdatatype.RdataType) -> Records:
    if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return None
    found = [
        _words(record) for rrset in response.answer if rrset.rdtype == kind for record in rrset
    ]
    if not found and response.flags & dns.flags.TC:
        return None
    return found


def _words(record: Any) -> str:
    if record.rdtype == dns.rdatatype.TXT:
        return b"".join(record.strings).decode("utf-8", "replace")
    return str(record.address)
