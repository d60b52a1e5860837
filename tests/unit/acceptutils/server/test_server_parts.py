"""acceptserver's pure parts: addresses, limits, options, the handover's text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils.server import handover
from acceptutils.server.addresses import Network, host_key, own_key, plain
from acceptutils.server.admission import Admission, Limits, Throttle
from acceptutils.server.handover import HandoverError, State, next_image
from acceptutils.server.options import MOST, UsageError, parse


@pytest.mark.parametrize(
    ("seen", "shown"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::1", "::1"),
        ("::ffff:0:1", "::ffff:0:1"),
    ],
)
def test_addresses_are_shown_plain(seen: str, shown: str) -> None:
    assert plain(seen) == shown


def test_an_ipv6_customer_is_one_host_however_many_addresses_it_uses() -> None:
    assert host_key("2001:db8:1:2::1") == host_key("2001:db8:1:2:ffff::9")
    assert host_key("2001:db8:1:2::1") != host_key("2001:db8:1:3::1")
    assert host_key("192.0.2.1") != host_key("192.0.2.2")


@pytest.mark.parametrize(
    ("block", "inside", "outside"),
    [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("0.0.0.0/0", "203.0.113.9", "::1"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
        ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
        ("172.16.0.0/12", "172.31.255.255", "172.32.0.0"),
    ],
)
def test_networks(block: str, inside: str, outside: str) -> None:
    assert inside in Network(block)
    assert outside not in Network(block)
    assert "nonsense" not in Network(block)


@pytest.mark.parametrize(
    "text", ["", "10.0.0", "10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0.0/x", "10.0.0.0/", "a/8"]
)
def test_a_malformed_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|prefix"):
        Network(text)


def test_limits_count_up_and_down_and_forget_hosts() -> None:
    admission = Admission(Limits(total=3, per_host=2))
    for host in "a", "a", "b":
        assert admission.refusal(host) is None
        admission.enter(host)
    assert admission.refusal("b") == "limit of 3 connections"
    admission.leave("b")
    assert admission.refusal("a") == "limit of 2 connections per host"
    assert admission.refusal("b") is None
    admission.leave("a")
    admission.leave("a")
    assert admission.total == 0
    assert admission._hosts == {}


def test_a_full_server_has_room_for_its_own_host() -> None:
    admission = Admission(Limits(total=1, per_host=5, own=2), own_key("0"))
    admission.enter("192.0.2.1")
    for _ in range(2):
        assert admission.refusal("192.0.2.1") == "limit of 1 connections"
        assert admission.refusal("127.0.0.1") is None
        admission.enter("127.0.0.1")
    assert admission.refusal("127.0.0.1") == "limit of 1 connections"


@pytest.mark.parametrize(
    ("listens_on", "own"),
    [("0", "127.0.0.1"), ("::", "127.0.0.1"), ("192.0.2.1", "192.0.2.1"), ("::1", "::1")],
)
def test_its_own_host_is_where_a_server_listens(listens_on: str, own: str) -> None:
    assert own_key(listens_on) == host_key(own)


def test_a_proxy_is_not_limited_as_one_host() -> None:
    admission = Admission(Limits(total=3, per_host=1))
    admission.enter(None)
    admission.enter(None)
    assert admission.refusal(None) is None
    admission.enter(None)
    assert admission.refusal(None) == "limit of 3 connections"
    admission.leave(None)
    assert admission.refusal(None) is None


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["a", "b", "c", None]))))
def test_limits_hold_whatever_comes_and_goes(events: list[tuple[bool, str | None]]) -> None:
    limits = Limits(total=4, per_host=2)
    admission = Admission(limits)
    inside: list[str | None] = []
    for arrives, host in events:
        if arrives and admission.refusal(host) is None:
            admission.enter(host)
            inside.append(host)
        elif not arrives and host in inside:
            admission.leave(host)
            inside.remove(host)
        assert admission.total == len(inside) <= limits.total
        assert all(inside.count(one) <= limits.per_host for one in "abc")


def test_a_flood_is_reported_once_a_second_with_its_size() -> None:
    throttle = Throttle(seconds=1.0)
    assert [throttle.pass_on(now) for now in (10.0, 10.1, 10.9, 11.0, 11.5, 12.5)] == [
        *(1, 0, 0),
        *(3, 0),
        2,
    ]


# The command line.


COMMAND_LINE = [
    *("-t", "-c", "50", "-C", "5", "-b", "20", "-u", "7791", "-g", "2108", "-l", "mx"),
    *("-x", "go away", "-p", "10.0.0.0/8,::1", "-K", "1500", "-G", "7", "-R", "9", "-H", "3"),
    *("-n", "4", "-q", "0", "25", "fixsmtpio", "qmail-smtpd", "-t"),
]


def test_options() -> None:
    options = parse(COMMAND_LINE)
    assert (options.host, options.port) == ("0", "25")
    assert options.program == ["fixsmtpio", "qmail-smtpd", "-t"]
    assert options.offer_tls
    assert not options.implicit_tls
    assert options.limits == Limits(50, 5)
    assert (options.uid, options.gid, options.backlog) == (7791, 2108, 20)
    assert (options.local_name, options.refusal) == ("mx", b"go away\r\n")
    assert "10.1.2.3" in options.proxies[0]
    assert (options.handshake_seconds, options.grace_seconds) == (1.5, 7)
    assert (options.renew_connections, options.renew_hours, options.notify) == (9, 3, 4)
    assert not options.verbose


def test_defaults_and_zeros() -> None:
    assert parse(["0", "25", "prog"]).limits == Limits(100, MOST)
    assert parse(["-K", "0", "0", "25", "prog"]).handshake_seconds is None
    assert parse(["--", "0", "25", "-prog"]).program == ["-prog"]


@pytest.mark.parametrize(
    "words",
    [
        "",
        "0 25",
        "-z 0 25 prog",
        "-c 0 0 25 prog",
        "-c x 0 25 prog",
        "-c -1 0 25 prog",
        "-c 99999999999 0 25 prog",
        "-c ² 0 25 prog",
        "-u 0 -g 0 0 25 prog",
        "-u root -g root 0 25 prog",
        "-u 7791 0 25 prog",
        "-g 7791 0 25 prog",
        "-t -T 0 25 prog",
        "-p 10.0.0.1/8 0 25 prog",
    ],
)
def test_misuse_is_refused(words: str) -> None:
    with pytest.raises(UsageError):
        parse(words.split())


# The handover.

PIDS = st.integers(1, 4194304)
HOSTS = st.none() | st.just("192.0.2.1") | st.binary(min_size=8, max_size=8)
STATES = st.builds(
    State,
    st.integers(0, 9999),
    st.none() | st.tuples(PIDS, st.integers(0, 9999)),
    st.lists(PIDS),
    st.lists(st.tuples(PIDS, st.just("a1b2c3-f"), st.just("2001:db8::1"), HOSTS)),
)


@given(STATES)
def test_the_next_image_reads_what_this_one_wrote(state: State) -> None:
    assert handover.parse(handover.render(state)) == state


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"zygote 1 2\n",
        b"listener x\n",
        b"listener 3\nzygote\n",
        b"listener 3\nconnection 1 s a zz\n",
        b"listener 3\nother\n",
        b"\xff",
    ],
)
def test_a_handover_that_does_not_parse_is_refused(content: bytes) -> None:
    with pytest.raises(HandoverError):
        handover.parse(content)


ARGUMENTS = ["-t", "0", "25", "prog"]


@pytest.mark.parametrize("name", ["/usr/bin/acceptserver", "acceptserver"])
def test_the_next_image_is_started_as_this_one_was(name: str) -> None:
    interpreter = ["/usr/bin/python3", "-IS", "/usr/bin/acceptserver", *ARGUMENTS]
    assert next_image(interpreter, [name, *ARGUMENTS]) == interpreter


@pytest.mark.parametrize(
    "before",
    [
        ["/usr/bin/first", "-x", "acceptserver", "-t", "0", "26", "prog"],
        ["/usr/bin/first", *ARGUMENTS],
        ARGUMENTS,
    ],
)
def test_a_program_that_ran_before_this_one_is_not_run_again(before: list[str]) -> None:
    assert next_image(["python3", "-IS", *before], ["acceptserver", *ARGUMENTS]) is None
