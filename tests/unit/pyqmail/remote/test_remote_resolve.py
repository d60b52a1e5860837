"""Look-ups against a name server on this host."""

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest

from pyqmail.remote import hosts, report, resolve
from pyqmail.remote.addresses import Candidate, Exchanger
from pyqmail.remote.dane import Tlsa

ZONE = {
    ("example.org.", "MX"): ["20 b.example.org.", "10 a.example.org."],
    ("a.example.org.", "A"): ["192.0.2.1"],
    ("a.example.org.", "AAAA"): ["2001:db8::1"],
    ("b.example.org.", "A"): ["192.0.2.2"],
    ("alias.example.org.", "CNAME"): ["example.org."],
    ("null.example.org.", "MX"): ["0 ."],
    ("plain.example.org.", "A"): ["192.0.2.3"],
    ("text.example.org.", "TXT"): ["x"],
    ("half.example.org.", "MX"): ["10 gone.example.org.", "10 a.example.org."],
    ("only6.example.org.", "AAAA"): ["2001:db8::6"],
    ("aka.example.org.", "CNAME"): ["a.example.org."],
    ("_mta-sts.example.org.", "TXT"): ['"v=STSv1;" " id=1;"', '"x"'],
    ("_25._tcp.a.example.org.", "TLSA"): ["3 1 1 " + "ab" * 32],
    ("insecure.example.org.", "MX"): ["10 a.example.org."],
    ("_25._tcp.insecure.example.org.", "TLSA"): ["3 1 1 " + "ab" * 32],
}
INSECURE = ("insecure.example.org.", "_25._tcp.insecure.example.org.", "b.example.org.")
BROKEN = "broken.example.org."
SILENT = "silent.example.org."


def answer(query: dns.message.Message) -> dns.message.Message | None:
    """Answer like a resolver that knows ZONE."""
    response = dns.message.make_response(query)
    response.flags |= dns.flags.RA
    (question,) = query.question
    name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
    if query.flags & dns.flags.AD and name not in INSECURE:
        response.flags |= dns.flags.AD
    if name == SILENT:
        return None
    if name == BROKEN:
        response.set_rcode(dns.rcode.SERVFAIL)
        return response
    if target := ZONE.get((name, "CNAME")):
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", *target))
        name = target[0]
    if records := ZONE.get((name, kind)):
        response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *records))
    elif not any(known == name for known, _ in ZONE):
        response.set_rcode(dns.rcode.NXDOMAIN)
    return response


@pytest.fixture
def server() -> Iterator[int]:
    """A name server; returns its port."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            data, client = listener.recvfrom(4096)
            if data == b"end":
                return
            response = answer(dns.message.from_wire(data))
            if response is not None:
                listener.sendto(response.to_wire(), client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.sendto(b"end", listener.getsockname())
    thread.join(10)
    listener.close()


Make = Callable[..., resolve.Resolver]


@pytest.fixture
def resolver(server: int) -> Make:
    def make(servers: resolve.Servers = resolve.SYSTEM) -> resolve.Resolver:
        inner = dns.resolver.Resolver(configure=False)
        inner.nameservers = ["127.0.0.1"]
        inner.port = server
        return resolve.Resolver(servers, inner)

    return make


def test_exchangers(resolver: Make) -> None:
    found = sorted(resolver().exchangers(b"example.org").found)
    assert found == [Exchanger(10, b"a.example.org"), Exchanger(20, b"b.example.org")]


def test_exchangers_of_an_alias_are_those_of_the_domain_behind_it(resolver: Make) -> None:
    assert len(resolver().exchangers(b"alias.example.org").found) == 2


def test_addresses_are_ipv4_first(resolver: Make) -> None:
    assert resolver().addresses(b"a.example.org").found == [
        ipaddress.ip_address("192.0.2.1"),
        ipaddress.ip_address("2001:db8::1"),
    ]


def test_a_host_with_one_family_only(resolver: Make) -> None:
    only = [ipaddress.ip_address("2001:db8::6")]
    assert resolver().addresses(b"only6.example.org").found == only
    assert len(resolver().addresses(b"plain.example.org").found) == 1


def test_no_answer_is_told_from_no_domain(resolver: Make) -> None:
    assert resolver().exchangers(b"text.example.org").found == []
    assert resolver().addresses(b"text.example.org").found == []
    with pytest.raises(resolve.NoSuchDomainError):
        resolver().exchangers(b"gone.example.org")
    with pytest.raises(resolve.NoSuchDomainError):
        resolver().addresses(b"gone.example.org")


@pytest.mark.parametrize("name", [b"broken.example.org", b"silent.example.org"])
def test_trouble_is_told_from_no_domain(
    resolver: Make, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    monkeypatch.setattr(resolve, "LOOKUP_SECONDS", 0.3)
    with pytest.raises(resolve.TroubleError):
        resolver().exchangers(name)
    with pytest.raises(resolve.TroubleError):
        resolver().addresses(name)


@pytest.mark.parametrize("name", [b"", b".", b"a..b", b"\xff.example", b"x" * 64 + b".example"])
def test_what_can_be_no_domain_is_none(resolver: Make, name: bytes) -> None:
    try:
        found = resolver().exchangers(name).found
    except resolve.NoSuchDomainError:
        found = []
    assert found == []


def test_all_look_ups_of_a_delivery_have_a_deadline(
    resolver: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "DELIVERY_SECONDS", 0.0)
    with pytest.raises(resolve.TroubleError):
        resolver().exchangers(b"example.org")


TRUSTED = resolve.Servers(trusted=True)


def test_answers_are_secure_when_a_trusted_resolver_says_so(resolver: Make) -> None:
    assert resolver(TRUSTED).exchangers(b"example.org").secure
    assert resolver(TRUSTED).exchangers(b"plain.example.org").secure  # that there are none
    assert not resolver(TRUSTED).exchangers(b"insecure.example.org").secure
    assert not resolver().exchangers(b"example.org").secure
    found = resolver(TRUSTED).addresses(b"aka.example.org")
    assert found.secure and found.name == b"a.example.org"
    assert resolver(TRUSTED).addresses(b"b.example.org")[1:] == (False, b"")
    assert resolver().addresses(b"a.example.org")[1:] == (False, b"")


def test_tlsa_records_count_only_when_they_are_secure(resolver: Make) -> None:
    record = Tlsa(3, 1, 1, b"\xab" * 32)
    assert resolver(TRUSTED).tlsa(b"_25._tcp.a.example.org") == [record]
    assert resolver(TRUSTED).tlsa(b"_25._tcp.insecure.example.org") == []
    assert resolver(TRUSTED).tlsa(b"_25._tcp.gone.example.org") == []
    assert resolver().tlsa(b"_25._tcp.a.example.org") == []
    with pytest.raises(resolve.TroubleError):
        resolver(TRUSTED).tlsa(b"broken.example.org")


def test_texts_come_in_one_piece(resolver: Make) -> None:
    assert sorted(resolver().texts(b"_mta-sts.example.org")) == [b"v=STSv1; id=1;", b"x"]
    assert resolver().texts(b"plain.example.org") == []
    assert resolver().texts(b"gone.example.org") == []


def test_candidates_have_names_for_records_where_the_dns_is_secure(resolver: Make) -> None:
    found = {c.host: c.bases for c in hosts.look_up(b"example.org", resolver(TRUSTED))}
    assert found == {b"a.example.org": (b"a.example.org",), b"b.example.org": ()}
    (found_insecure,) = {c.bases for c in hosts.look_up(b"insecure.example.org", resolver(TRUSTED))}
    assert found_insecure == ()


def test_named_servers_are_asked_instead_of_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns.resolver.Resolver, "read_resolv_conf", None)  # not even read
    made = resolve.Resolver(resolve.Servers(("192.0.2.53", "2001:db8::53")))
    assert list(made._resolver.nameservers) == ["192.0.2.53", "2001:db8::53"]


def addresses_of(candidates: list[Candidate]) -> list[str]:
    return [str(candidate.address) for candidate in candidates]


def test_candidates_of_a_domain(resolver: Make) -> None:
    found = hosts.look_up(b"example.org", resolver())
    assert addresses_of(found) == ["192.0.2.1", "2001:db8::1", "192.0.2.2"]
    assert [candidate.host for candidate in found] == [b"a.example.org"] * 2 + [b"b.example.org"]


def test_a_domain_without_exchangers_is_its_own(resolver: Make) -> None:
    found = hosts.look_up(b"plain.example.org", resolver())
    assert addresses_of(found) == ["192.0.2.3"]


def test_an_exchanger_that_does_not_exist_is_passed_over(resolver: Make) -> None:
    found = hosts.look_up(b"half.example.org", resolver())
    assert addresses_of(found) == ["192.0.2.1", "2001:db8::1"]


def test_a_null_exchanger_bounces(resolver: Make) -> None:
    with pytest.raises(report.Outcome) as outcome:
        hosts.look_up(b"null.example.org", resolver())
    assert outcome.value.report.startswith(b"DSorry, that domain says that it accepts no mail.")


def test_relays_are_looked_up_the_systems_way() -> None:
    assert ipaddress.ip_address("127.0.0.1") in resolve.relay_addresses(b"localhost")
    with pytest.raises(resolve.TroubleError):
        resolve.relay_addresses(b"no-such-relay.invalid")
    with pytest.raises(resolve.TroubleError):
        resolve.relay_addresses(b"\xff")
