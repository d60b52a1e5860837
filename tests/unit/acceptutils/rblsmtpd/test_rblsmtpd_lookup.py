"""Look-ups: many at once, by way of caches that are slow, silent, wrong or lying."""

import dns.flags
import dns.message
import dns.rcode
import pytest
from harness.dnsserver import Dns

from acceptutils.rblsmtpd import lookup
from acceptutils.rblsmtpd.lists import Question

A = Question("1.2.0.192.bl.example", "A")
TXT = Question("1.2.0.192.bl.example", "TXT")
OTHER = Question("1.2.0.192.other.example", "A")
CACHE = ["127.0.0.1"]


def never(answers: lookup.Answers) -> bool:
    return False


@pytest.fixture
def listed(dns_server: Dns) -> Dns:
    """The server, which has records."""
    dns_server.list_address(A.name, text="why")
    return dns_server


def test_all_is_asked_at_once(listed: Dns) -> None:
    answers = lookup.ask([A, TXT, OTHER], CACHE, never)
    assert answers == {A: ["127.0.0.2"], TXT: ["why"], OTHER: []}
    assert sorted(listed.asked) == sorted([A, TXT, OTHER])


def test_a_text_in_pieces_is_one(dns_server: Dns) -> None:
    dns_server.add(TXT.name, "TXT", '"one " "two"')
    assert lookup.ask([TXT], CACHE, never) == {TXT: ["one two"]}


def test_it_ends_with_the_answer_that_is_enough(listed: Dns) -> None:
    listed.reaction = lambda wire: listed.answer(wire) if b"bl" in wire else []
    answers = lookup.ask([A, OTHER], CACHE, lambda answers: A in answers)
    assert answers == {A: ["127.0.0.2"]}


@pytest.mark.usefixtures("impatient")
def test_silence_is_no_answer(dns_server: Dns) -> None:
    dns_server.reaction = lambda wire: []
    assert lookup.ask([A, TXT], CACHE, never) == {}
    assert dns_server.asked.count(A) == 3


def test_a_lost_answer_is_asked_for_again_and_only_that(listed: Dns) -> None:
    lost = iter([True])
    listed.reaction = lambda wire: (
        [] if b"other" in wire and next(lost, False) else listed.answer(wire)
    )
    assert lookup.ask([A, OTHER], CACHE, never) == {A: ["127.0.0.2"], OTHER: []}
    assert listed.asked.count(A) == 1
    assert listed.asked.count(OTHER) == 2


def test_a_silent_cache_is_followed_by_the_next(
    listed: Dns, second_server: Dns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "ATTEMPTS", (0.1, 20, 20))
    listed.reaction = lambda wire: []
    second_server.list_address(A.name, code="127.0.0.4")
    assert lookup.ask([A], ["127.0.0.1", "127.0.0.2"], never) == {A: ["127.0.0.4"]}


def test_a_cache_that_is_not_there_takes_no_time(listed: Dns) -> None:
    # Nobody listens on that port of 127.0.0.3; the kernel says so at once.
    assert lookup.ask([A], ["127.0.0.3", "127.0.0.1"], never) == {A: ["127.0.0.2"]}


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP])
def test_a_cache_that_cannot_say_is_a_failure(rcode: dns.rcode.Rcode, dns_server: Dns) -> None:
    dns_server.reaction = lambda wire: dns_server.answer(wire, rcode)
    assert lookup.ask([A], CACHE, never) == {A: None}


def test_what_is_no_answer_to_the_question_is_not_heard(listed: Dns) -> None:
    def lie(wire: bytes) -> list[bytes]:
        query = dns.message.from_wire(wire)
        other = dns.message.make_query("elsewhere.example", "A", id=query.id)
        return [
            b"\0",
            b"\xff" * 600,
            wire,
            bytes([wire[0] ^ 1]) + listed.answer(wire)[0][1:],
            dns.message.make_response(other).to_wire(),
            *listed.answer(wire),
        ]

    listed.reaction = lie
    assert lookup.ask([A], CACHE, never) == {A: ["127.0.0.2"]}


def test_a_cut_answer_without_a_record_is_a_failure(dns_server: Dns) -> None:
    def cut(wire: bytes) -> list[bytes]:
        response = dns.message.make_response(dns.message.from_wire(wire))
        response.flags |= dns.flags.TC
        return [response.to_wire()]

    dns_server.reaction = cut
    assert lookup.ask([A], CACHE, never) == {A: None}


@pytest.mark.parametrize(
    ("resolv_conf", "variable", "wanted"),
    [
        ("search x\nnameserver 192.0.2.1\nnameserver ::1 # x\n", None, ["192.0.2.1", "::1"]),
        ("nameserver\n", None, ["127.0.0.1"]),
        (None, None, ["127.0.0.1"]),
        ("nameserver 192.0.2.1\n", "192.0.2.7  ::2", ["192.0.2.7", "::2"]),
        ("nameserver 192.0.2.1\n", "", ["192.0.2.1"]),
    ],
)
def test_the_caches_are_those_of_the_variable_or_the_file(
    resolv_conf: str | None,
    variable: str | None,
    wanted: list[str],
    tmp_path: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = f"{tmp_path}/resolv.conf"
    monkeypatch.setattr(lookup, "RESOLV_CONF", path)
    if resolv_conf is not None:
        with open(path, "w") as file:
            file.write(resolv_conf)
    assert lookup.servers({} if variable is None else {"DNSCACHEIP": variable}) == wanted
