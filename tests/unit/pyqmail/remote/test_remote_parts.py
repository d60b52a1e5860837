"""The pure parts of qmail-remote and qmail-rspawn."""

import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyqmail.remote import addresses, policy, routes, rspawn, session, tcpto, tls, wire
from pyqmail.remote.addresses import Candidate, Exchanger
from pyqmail.remote.policy import Level, Policy
from pyqmail.remote.reply import Reply, ReplyError, ReplyReader
from pyqmail.remote.routes import Credentials, Route

# --- routes --------------------------------------------------------------------------

ROUTES = [
    b"Example.org:relay.example.net",
    b".example.org:other.example.net:2525",
    b"direct.example.org:",
    b"six.example:[2001:db8::1]:26",
    b"auth.example:smtp.example.net:587 joe pass word",
    b":default.example.net",
    b"no colon",
]


@pytest.mark.parametrize(
    ("domain", "route"),
    [
        (b"example.org", Route(b"relay.example.net")),
        (b"EXAMPLE.ORG", Route(b"relay.example.net")),
        (b"a.example.org", Route(b"other.example.net", 2525)),
        (b"b.a.example.org", Route(b"other.example.net", 2525)),
        (b"direct.example.org", None),
        (b"six.example", Route(b"[2001:db8::1]", 26)),
        (
            b"auth.example",
            Route(b"smtp.example.net", 587, Credentials(b"joe", b"pass word")),
        ),
        (b"notexample.org", Route(b"default.example.net")),
        (b"", Route(b"default.example.net")),
    ],
)
def test_the_most_specific_route_counts(domain: bytes, route: Route | None) -> None:
    assert routes.find(routes.table(ROUTES), domain) == route


def test_without_a_line_there_is_no_route() -> None:
    assert routes.find(routes.table([b"example.org:relay"]), b"example.net") is None


@pytest.mark.parametrize("way", [b"relay:x", b"relay:0", b"relay:65536", b"relay joe", b"[::1"])
def test_a_route_that_makes_no_sense_is_an_error_only_where_it_counts(way: bytes) -> None:
    lines = routes.table([b"bad.example:" + way, b"good.example:relay"])
    with pytest.raises(routes.RouteError):
        routes.find(lines, b"bad.example")
    assert routes.find(lines, b"good.example") == Route(b"relay")


def test_credentials_do_not_show_themselves() -> None:
    route = routes.parse(b"relay joe geheim")
    assert "geheim" not in repr(route)
    assert "joe" not in repr(route)


# --- policy --------------------------------------------------------------------------


def test_tls_is_opportunistic_unless_said_otherwise() -> None:
    lines = [
        b"a.example:require",
        b".b.example:verify:mx.c.example, mx.d.example",
        b"e.example:none",
    ]
    assert policy.find(lines, b"x.example", secret=False) == Policy(Level.MAY)
    assert policy.find(lines, b"A.example", secret=False) == Policy(Level.REQUIRE, firm=True)
    assert policy.find(lines, b"x.b.example", secret=False) == Policy(
        Level.VERIFY, (b"mx.c.example", b"mx.d.example")
    )
    assert policy.find(lines, b"e.example", secret=False) == Policy(Level.NONE, firm=True)


def test_a_password_wants_a_verified_server_unless_the_relay_itself_is_listed() -> None:
    assert policy.find([b":may"], b"relay.example", secret=True) == Policy(Level.VERIFY)
    may = policy.find([b"relay.example:may"], b"relay.example", secret=True)
    assert may == Policy(Level.MAY, firm=True)


@pytest.mark.parametrize("text", [b"", b"maybe", b"require:name", b"may:name"])
def test_a_policy_that_makes_no_sense(text: bytes) -> None:
    with pytest.raises(policy.PolicyError):
        policy.parse(text)


@pytest.mark.parametrize(
    ("given", "domain", "host", "names"),
    [
        (
            Policy(Level.VERIFY),
            b"Example.org",
            b"mx.example.org",
            (b"example.org", b"mx.example.org"),
        ),
        (Policy(Level.VERIFY), b"example.org", b"mx.evil.example", (b"example.org",)),
        (Policy(Level.VERIFY), b"example.org", b"mx.badexample.org", (b"example.org",)),
        (Policy(Level.VERIFY, (b"n",)), b"example.org", b"mx.example.org", (b"n",)),
    ],
)
def test_an_exchanger_outside_of_the_domain_vouches_for_nothing(
    given: Policy, domain: bytes, host: bytes, names: tuple[bytes, ...]
) -> None:
    assert policy.expected_names(given, domain, host) == names


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        (b"mx.example.org", b"mx.example.org", True),
        (b"*.example.org", b"mx.example.org", True),
        (b"*.example.org", b"a.mx.example.org", False),
        (b"*.example.org", b"example.org", False),
        (b"*.org", b"example.org", False),
        (b"*", b"org", False),
        (b"m*.example.org", b"mx.example.org", False),
    ],
)
def test_names_in_certificates(pattern: bytes, name: bytes, matches: bool) -> None:
    assert tls.name_matches(pattern, name) is matches


def test_certificate_with_addresses_and_names() -> None:
    certificate = {
        "subject": ((("commonName", "cn.example"),),),
        "subjectAltName": (("DNS", "MX.example"), ("IP Address", "192.0.2.1")),
    }
    assert tls.certificate_names_match(certificate, (b"other.example", b"mx.example"))
    assert tls.certificate_names_match(certificate, (b"[192.0.2.1]",))
    assert not tls.certificate_names_match(certificate, (b"192.0.2.2",))
    assert not tls.certificate_names_match(certificate, (b"cn.example",))
    assert not tls.certificate_names_match({}, (b"mx.example",))


# --- the message on the wire ---------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        (b"", b""),
        (b"a\nb\n", b"a\r\nb\r\n"),
        (b"no end", b"no end\r\n"),
        (b".\n..\n.a\n", b"..\r\n...\r\n..a\r\n"),
        (b"crlf\r\n.\r\n", b"crlf\r\n..\r\n"),
        (b"two\r\r\n", b"two\r\n"),
        (b"a\rb\n", b"a b\r\n"),
        (b"\r.\r\n", b" .\r\n"),
        (b"a\r", b"a \r\n"),
        (b"\n\r.\n", b"\r\n .\r\n"),
    ],
)
def test_lines_end_with_crlf_and_dots_are_doubled(stored: bytes, sent: bytes) -> None:
    assert b"".join(wire.encode([stored])) == sent


# The look-alikes of the end of data that SMTP smuggling uses.
LOOK_ALIKES = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\n.\r", b"\r.\n", b"\r.\r\n", b"\r.\r", b"\r\n.\r",
    b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\r\r\n.\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n",
]  # fmt: skip


@pytest.mark.parametrize("look_alike", LOOK_ALIKES)
def test_no_look_alike_gets_out(look_alike: bytes) -> None:
    sent = b"".join(wire.encode([b"one" + look_alike + b"MAIL FROM:<x>\nend\n"]))
    assert_clean(sent)


def assert_clean(sent: bytes) -> None:
    bare = sent.replace(b"\r\n", b"")
    assert b"\r" not in bare and b"\n" not in bare
    assert b"\r\n.\r\n" not in b"\r\n" + sent
    lines = sent.split(b"\r\n")
    assert not any(line.startswith(b".") and not line.startswith(b"..") for line in lines)


PIECES = st.lists(st.sampled_from([b"\r", b"\n", b".", b"x", b"\r\n", b"\n.\n", b"\r\n.\r\n"]))


@given(PIECES)
def test_whatever_the_message_and_however_it_is_cut(pieces: list[bytes]) -> None:
    sent = b"".join(wire.encode(pieces))
    assert_clean(sent)
    assert sent == b"".join(wire.encode([b"".join(pieces)]))
    assert not sent or sent.endswith(b"\r\n")


@given(PIECES)
def test_the_announced_size_is_enough(pieces: list[bytes]) -> None:
    lines = b"".join(wire.encode(pieces)).split(b"\r\n")
    undotted = b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)
    assert wire.Facts(pieces).size >= len(undotted)


def test_eight_bit_messages_are_recognised() -> None:
    assert not wire.Facts([b"abc\n"]).eight_bit
    assert wire.Facts([b"abc\n", b"\xc3\xa4\n", b"x"]).eight_bit


# --- replies -------------------------------------------------------------------------


def read(data: bytes) -> Reply | None:
    reader = ReplyReader()
    reader.feed(data)
    return reader.take()


def test_replies_of_one_and_of_several_lines() -> None:
    assert read(b"250 ok\r\n") == Reply(250, (b"ok",))
    assert read(b"250-a\r\n250-b\r\n250 c\r\n") == Reply(250, (b"a", b"b", b"c"))
    assert read(b"220\r\n") == Reply(220, (b"",))
    assert read(b"250 ok\n") == Reply(250, (b"ok",))
    assert read(b"250-a\r\n") is None


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n",
        b"\r\n",
        b"25 ok\r\n",
        b"2500 ok\r\n",
        b"999 ok\r\n",
        b"100 ok\r\n",
        b"250-a\r\n550 b\r\n",
        b"250 " + b"x" * 5000,
        b"250-x\r\n" * 2000,
        b"-50 x\r\n",
    ],
)
def test_what_is_no_reply(data: bytes) -> None:
    with pytest.raises(ReplyError):
        read(data)


@given(st.lists(st.integers(0, 40)))
def test_replies_do_not_depend_on_how_they_are_cut(cuts: list[int]) -> None:
    data = b"250-a\r\n250 b\r\n354 go\r\n550 no\r\n"
    reader = ReplyReader()
    found = []
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in itertools.pairwise(edges):
        reader.feed(data[start:end])
        while reply := reader.take():
            found.append(reply.code)
    assert found == [250, 354, 550]
    assert not reader.pending


def test_the_text_of_a_reply_forges_nothing_in_a_report() -> None:
    reply = read(b"550-no\0t\rhere\r\n550 \x1b[31mgo\x7f\r\n")
    assert reply is not None
    assert reply.text == b"550-no?t?here\n550 ?[31mgo?\n"


def test_the_text_of_a_reply_is_bounded() -> None:
    reply = Reply(550, (b"x" * 4000,) * 10)
    assert len(reply.text) == 5000
    assert reply.text.endswith(b"\n")


def test_extensions_of_a_server() -> None:
    reply = read(
        b"250-mx.example.org hello\r\n250-PIPELINING\r\n250-Size 1000\r\n"
        b"250-AUTH PLAIN\r\n250-AUTH=LOGIN\r\n250 starttls\r\n"
    )
    assert reply is not None
    found = session.extensions(reply)
    assert set(found) == {b"PIPELINING", b"SIZE", b"AUTH", b"STARTTLS"}
    assert found[b"SIZE"] == b"1000"
    assert found[b"AUTH"].split() == [b"PLAIN", b"LOGIN"]


# --- addresses -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "address"),
    [
        (b"[192.0.2.1]", "192.0.2.1"),
        (b"192.0.2.1", "192.0.2.1"),
        (b"[IPv6:2001:db8::1]", "2001:db8::1"),
        (b"[2001:db8::1]", "2001:db8::1"),
        (b"[192.0.2.256]", None),
        (b"mx.example.org", None),
        (b"", None),
        (b"\xff", None),
    ],
)
def test_address_literals(host: bytes, address: str | None) -> None:
    expected = ipaddress.ip_address(address) if address else None
    assert addresses.literal(host) == expected


def test_null_mx() -> None:
    assert addresses.is_null_mx([Exchanger(0, b"")])
    assert not addresses.is_null_mx([Exchanger(0, b""), Exchanger(10, b"mx.example")])
    assert not addresses.is_null_mx([])


def candidate(preference: int, address: str) -> Candidate:
    return Candidate(preference, b"mx", ipaddress.ip_address(address))


def test_only_better_exchangers_than_ourselves_get_the_mail() -> None:
    all_of_them = [
        candidate(5, "192.0.2.5"),
        candidate(10, "192.0.2.10"),
        candidate(10, "192.0.2.11"),
        candidate(20, "192.0.2.20"),
    ]

    def usable(mine: str) -> list[int]:
        found = addresses.usable(all_of_them, lambda a: str(a) == mine)
        return [c.preference for c in found]

    assert usable("198.51.100.1") == [5, 10, 10, 20]
    assert usable("192.0.2.20") == [5, 10, 10]
    assert usable("192.0.2.11") == [5]
    assert usable("192.0.2.5") == []


# --- tcpto ---------------------------------------------------------------------------

HOST = bytes((192, 0, 2, 1))
NOW = 1_700_000_000


def record(address: bytes, errors: int, when: int) -> bytes:
    return address + bytes([errors, 0, 0, 0]) + when.to_bytes(4, "little") + bytes(4)


@pytest.mark.parametrize(
    ("errors", "age", "dead"),
    [(0, 0, False), (1, 0, False), (2, 0, True), (10, 3839, True), (10, 3840, False)],
)
def test_a_host_that_timed_out_twice_rests_for_an_hour(errors: int, age: int, dead: bool) -> None:
    table = record(bytes(4), 0, 0) + record(HOST, errors, NOW - age)
    assert tcpto.is_dead(table, HOST, NOW, 0) is dead
    assert not tcpto.is_dead(table, bytes((192, 0, 2, 2)), NOW, 0)


def test_the_rest_is_not_the_same_for_every_process() -> None:
    table = record(HOST, 2, NOW - 4000)
    assert not tcpto.is_dead(table, HOST, NOW, 0)
    assert tcpto.is_dead(table, HOST, NOW, 31)


def test_time_outs_are_counted() -> None:
    empty = bytes(tcpto.SIZE)
    assert tcpto.change(empty, HOST, NOW, timed_out=True) == (0, record(HOST, 1, NOW))
    table = record(HOST, 1, NOW)
    assert tcpto.change(table, HOST, NOW + 119, timed_out=True) is None
    assert tcpto.change(table, HOST, NOW + 120, timed_out=True) == (0, record(HOST, 2, NOW + 120))
    table = record(HOST, 10, NOW)
    assert tcpto.change(table, HOST, NOW + 999, timed_out=True) == (0, record(HOST, 10, NOW + 999))


def test_an_answer_clears_the_count() -> None:
    table = record(bytes(4), 0, 0) + record(HOST, 3, NOW)
    assert tcpto.change(table, HOST, NOW, timed_out=False) == (16, record(HOST, 0, NOW))
    assert tcpto.change(bytes(1024), HOST, NOW, timed_out=False) is None


def test_in_a_full_table_the_least_interesting_record_goes() -> None:
    table = b"".join(record(bytes((10, 0, 0, n)), 1, NOW + n) for n in range(64))
    table = table[:80] + record(bytes((10, 0, 0, 5)), 1, NOW - 5000) + table[96:]
    assert tcpto.change(table, HOST, NOW, timed_out=True) == (80, record(HOST, 1, NOW))


def test_without_a_table_nothing_is_written() -> None:
    assert tcpto.change(b"", HOST, NOW, timed_out=True) is None


# --- qmail-rspawn's reading of reports -----------------------------------------------


@pytest.mark.parametrize(
    ("output", "text"),
    [
        (b"r\0K1.2.3.4 accepted message.\n\0", b"K1.2.3.4 accepted message.\n"),
        (b"r\0Z1.2.3.4 failed.\n\0", b"Z1.2.3.4 failed.\n"),
        (b"r\0D1.2.3.4 failed.\n\0", b"D1.2.3.4 failed.\n"),
        (b"hno such user\n\0DGiving up on 1.2.3.4.\n\0", b"Dno such user\nGiving up on 1.2.3.4.\n"),
        (b"slater\n\0DGiving up on 1.2.3.4.\n\0", b"Zlater\nGiving up on 1.2.3.4.\n"),
        (b"hno\n\0Kaccepted\n\0", b"Dno\n"),
        (b"ZSorry\n\0", b"ZSorry\n"),
        (b"DSorry\n\0", b"DSorry\n"),
        (b"r\0", b"Z"),
        (b"Dcut of", b"Z"),
        (b"", b"Zqmail-remote produced no output.\n"),
    ],
)
def test_two_reports_become_one(output: bytes, text: bytes) -> None:
    assert rspawn.report(0, output) == text


@pytest.mark.parametrize(
    ("wait_status", "text"),
    [
        (9, b"Zqmail-remote crashed.\n"),
        (111 << 8, b"ZUnable to run qmail-remote.\n"),
        (100 << 8, b"DUnable to run qmail-remote.\n"),
    ],
)
def test_what_an_exit_status_means(wait_status: int, text: bytes) -> None:
    assert rspawn.report(wait_status, b"r\0Kx\0") == text
