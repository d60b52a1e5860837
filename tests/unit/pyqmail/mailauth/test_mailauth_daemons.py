"""The daemons behind their sockets: who is answered, and what is answered."""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.exception
import dns.resolver
import pytest

from appliance import dkim as dkim_admin
from pyqmail.mailauth import dkimverify, message, service, signer, verifier, wire
from pyqmail.mailauth.keys import KeyStore
from pyqmail.mailauth.lookups import SILENCE_SECONDS, Lookups, Resolver, TroubleError
from pyqmail.mailauth.message import Message
from pyqmail.mailauth.owners import Logins
from pyqmail.mailauth.signer import Signer
from pyqmail.mailauth.verifier import Verifier
from pyqmail.mailauth.wire import Answer, Request
from ucspi import cdb

TEXT = b"From: alice@example.org\nTo: bob@example.net\nSubject: x\n\nbody\n"
ALICE, BOB = 20000, 20001
InFile = Callable[[bytes], int]
Zone = dict[tuple[str, str], list[str]]


@pytest.fixture
def keys(tmp_path: Path, rsa_pem: bytes, ed25519_pem: bytes) -> Path:
    """A directory of keys, of which r1 is in use."""
    place = tmp_path / "keys/example.org"
    place.mkdir(parents=True)
    (place / "r1.pem").write_bytes(rsa_pem)
    (place / "e1.pem").write_bytes(ed25519_pem)
    (place / "use").write_text("r1\n")
    return place


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def owned(tmp_path: Path) -> tuple[Logins, str]:
    """What says who owns which address."""
    assign = tmp_path / "assign"
    assign.write_text(
        "=example.org-news:alias:7790:2108:/var/qmail/alias:-:example.org-news:\n"
        f"=example.org-alice:alice@example.org:{ALICE}:{ALICE}:/home/example.org/alice:::\n"
        f"=example.org-bob:bob@example.org:{BOB}:{BOB}:/home/example.org/bob:::\n.\n"
    )
    senders = str(tmp_path / "senders.cdb")
    cdb.write(
        senders,
        [
            (b"alice@example.org", b"alice@example.org"),
            (b"bob@example.org", b"bob@example.org"),
            (b"sales@example.org", b"alice@example.org\0bob@example.org"),
        ],
    )
    return Logins(str(assign)), senders


@pytest.fixture
def signing_daemon(keys: Path, owned: tuple[Logins, str], said: list[str]) -> Signer:
    return Signer(KeyStore(str(keys.parent), said.append), *owned)


Sign = Callable[[bytes, int], Answer]


@pytest.fixture
def sign(signing_daemon: Signer, in_file: InFile) -> Sign:
    return lambda text, uid: signing_daemon.answer(Request(wire.SIGN), in_file(text), uid)


def selectors(lines: bytes) -> list[bytes]:
    """Return the selectors of the signatures in header lines."""
    return re.findall(rb"\ss=([^;]+);", lines)


@pytest.mark.parametrize(
    "author", [b"alice@example.org", b"Alice@Example.ORG", b"alice-list@example.org"]
)
def test_a_users_own_mail_is_signed(sign: Sign, author: bytes) -> None:
    answer = sign(TEXT.replace(b"alice@example.org", author), ALICE)
    assert answer.verdict == wire.GO_ON
    assert selectors(answer.lines) == [b"r1"]


@pytest.mark.parametrize("uid", [ALICE, BOB])
def test_an_address_of_several_is_everybodys(sign: Sign, uid: int) -> None:
    assert sign(TEXT.replace(b"alice@", b"sales@"), uid).lines


@pytest.mark.parametrize("uid", [0, 33, 7790, 7791, 7795, 7802, BOB, 20002, 65534])
def test_the_daemon_is_no_oracle_for_other_processes(sign: Sign, uid: int) -> None:
    assert sign(TEXT, uid) == Answer(wire.GO_ON)


@pytest.mark.parametrize(
    "head",
    [
        b"From: bob@example.org",
        b"From: alice@example.org, bob@example.org",
        b"From: alice@example.org\nFrom: bob@example.org",
        b"From: bob@example.org\nFrom: alice@example.org",
        b"From: alice@example.org\nFROM : bob@example.org",
        b"Sender: alice@example.org",
        b"From: ",
        b"From: alice@example.org (",
        b"From: <@bob@example.org:alice@example.org>",
        b"From: bob@example.org <alice@example.org>",
        b"From: unknown@example.org",
        b"From: alice@other.example",
        b"From: alice@../example.org",
        b"From: alice@sub.example.org",
        b"From: alice@example.org" + b" " * 9000,
    ],
    ids=range(15),
)
def test_what_is_not_clearly_the_users_is_not_signed(sign: Sign, head: bytes) -> None:
    assert sign(head + b"\n\nbody\n", ALICE) == Answer(wire.GO_ON)


def test_a_file_without_an_end_is_not_hashed_to_its_end(
    sign: Sign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(message, "SIZE_LIMIT", 100_000)
    assert sign(TEXT + b"x" * 99_000, ALICE).lines
    monkeypatch.setattr(message, "CHUNK", 1000)
    assert sign(TEXT + b"x" * 101_000, ALICE) == Answer(wire.GO_ON)


def test_where_everybody_may_send_as_anybody_every_user_is_signed_for(
    keys: Path, in_file: InFile, said: list[str]
) -> None:
    daemon = Signer(KeyStore(str(keys.parent), said.append), None, "")
    assert daemon.answer(Request(wire.SIGN), in_file(TEXT), 1000).lines
    assert not daemon.answer(Request(wire.SIGN), in_file(TEXT), 7791).lines
    assert not daemon.answer(Request(wire.SIGN), in_file(TEXT), 0).lines


def test_keys_can_be_changed_while_the_daemon_runs(sign: Sign, keys: Path) -> None:
    assert selectors(sign(TEXT, ALICE).lines) == [b"r1"]
    (keys / "use").write_text("r1\ne1\n")
    assert selectors(sign(TEXT, ALICE).lines) == [b"r1", b"e1"]
    (keys / "use").unlink()
    assert sign(TEXT, ALICE).lines == b""


def test_a_broken_key_is_told_of_and_the_others_sign(
    sign: Sign, keys: Path, said: list[str]
) -> None:
    (keys / "x.pem").write_text("no key")
    (keys / "use").write_text("missing\n../r1\nx\nr1\n")
    assert selectors(sign(TEXT, ALICE).lines) == [b"r1"]
    assert [line.rpartition("/")[2].split(":")[0] for line in said] == ["missing.pem", "x.pem"]


def test_without_the_map_of_senders_mail_waits(
    sign: Sign, owned: tuple[Logins, str], tmp_path: Path
) -> None:
    (tmp_path / "assign").unlink()
    assert sign(TEXT, ALICE).verdict == wire.DEFERRED


def test_a_new_account_is_known_at_once(sign: Sign, tmp_path: Path) -> None:
    text = TEXT.replace(b"alice@", b"carol@")
    assert not sign(text, 20002).lines
    with (tmp_path / "assign").open("a") as file:
        file.write("=example.org-carol:carol@example.org:20002:20002:/home/x:::\n.\n")
    assert sign(text, 20002).lines


# The verifier.


@pytest.fixture
def verify(resolver: Resolver, in_file: InFile) -> Callable[..., Answer]:
    def ask(
        text: bytes = TEXT,
        *,
        enforce: bool = False,
        address: bytes = b"192.0.2.1",
        helo: bytes = b"client.example",
        sender: bytes = b"alice@example.org",
    ) -> Answer:
        daemon = Verifier("mail.example.net", resolver, enforce=enforce)
        request = Request(wire.VERIFY, address, helo, sender)
        return daemon.answer(request, in_file(text), os.geteuid())

    return ask


Ask = Callable[..., Answer]


def results(answer: Answer) -> list[str]:
    """Return the results in an answer's field, unfolded."""
    name, _, value = answer.lines.decode("ascii").partition(":")
    assert name == "Authentication-Results"
    assert answer.lines.endswith(b"\n")
    assert all(line[:1] == "\t" for line in value.split("\n")[1:-1])
    identity, *found = [" ".join(part.split()) for part in value.split(";")]
    assert identity == "mail.example.net"
    return found


def test_everything_passes(verify: Ask, zone: Zone, sign: Sign, rsa_pem: bytes) -> None:
    record = dkim_admin.record(rsa_pem)
    zone["example.org", "TXT"] = ['"v=spf1 ip4:192.0.2.0/24 -all"']
    zone["_dmarc.example.org", "TXT"] = ['"v=DMARC1; p=reject"']
    zone["r1._domainkey.example.org", "TXT"] = [f'"{record[:200]}" "{record[200:]}"']
    spf, dkim, dmarc = results(verify(sign(TEXT, ALICE).lines + TEXT, enforce=True))
    assert spf == "spf=pass smtp.mailfrom=alice@example.org"
    assert dkim.startswith("dkim=pass header.d=example.org header.s=r1 header.a=rsa-sha256")
    assert dmarc == "dmarc=pass (p=reject) header.from=example.org"


def test_nothing_is_published(verify: Ask) -> None:
    assert results(verify(enforce=True)) == [
        "spf=none smtp.mailfrom=alice@example.org",
        "dkim=none",
        "dmarc=none header.from=example.org",
    ]


SPOOFED = {
    ("example.org", "TXT"): ['"v=spf1 -all"'],
    ("_dmarc.example.org", "TXT"): ['"v=DMARC1; p=reject"'],
}


def test_what_fails_dmarc_is_only_told_of(verify: Ask, zone: Zone) -> None:
    zone.update(SPOOFED)
    answer = verify()
    assert answer.verdict == wire.GO_ON
    assert results(answer)[0].startswith("spf=fail ")
    assert results(answer)[2] == "dmarc=fail (p=reject) header.from=example.org"


def test_with_enforce_it_is_refused_and_told_why(verify: Ask, zone: Zone) -> None:
    zone.update(SPOOFED)
    answer = verify(enforce=True)
    assert answer.verdict == wire.REFUSED
    assert b"example.org" in answer.text
    assert b"#5.7.1" in answer.text


@pytest.mark.parametrize("policy", ["none", "quarantine"])
def test_enforce_refuses_nothing_that_the_domain_does_not_ask_for(
    verify: Ask, zone: Zone, policy: str
) -> None:
    zone.update(SPOOFED | {("_dmarc.example.org", "TXT"): [f'"v=DMARC1; p={policy}"']})
    assert verify(enforce=True).verdict == wire.GO_ON


@pytest.mark.parametrize(
    "head",
    [
        b"Subject: x",
        b"From: alice@other.example\nFrom: alice@example.org",
        b"From: alice@other.example, alice@example.org",
        b"From: alice@example.org, alice@other.example",
        b"From: <",
        b"From: alice",
        b"From: a@" + b"a" * 300 + b".example.org",
    ],
    ids=range(7),
)
def test_enforce_is_not_got_round_by_a_strange_from(verify: Ask, zone: Zone, head: bytes) -> None:
    zone.update(SPOOFED)
    assert verify(head + b"\n\nbody\n", enforce=True).verdict == wire.REFUSED
    assert verify(head + b"\n\nbody\n").verdict == wire.GO_ON


@pytest.mark.parametrize("broken", ["example.org", "_dmarc.example.org", "_dmarc.org"])
def test_no_answer_from_the_dns_is_no_reason_to_refuse(
    verify: Ask, zone: Zone, broken: str
) -> None:
    zone.update(SPOOFED)
    if broken == "_dmarc.org":
        del zone["_dmarc.example.org", "TXT"]
    zone[broken, "TXT"] = ["!"]
    answer = verify(enforce=True)
    assert answer.verdict == wire.GO_ON
    assert results(answer)[2] == "dmarc=temperror header.from=example.org"


def test_a_bounce_is_judged_by_the_name_in_helo(verify: Ask, zone: Zone) -> None:
    zone["client.example", "TXT"] = ['"v=spf1 ip4:192.0.2.1 -all"']
    answer = verify(sender=b"", text=b"From: MAILER-DAEMON@client.example\n\n")
    assert results(answer)[0] == "spf=pass smtp.helo=client.example"


@pytest.mark.parametrize(
    ("record", "result"),
    [
        ("v=spf1 a mx ~all", "softfail"),
        ("v=spf1 ?all", "neutral"),
        ("v=spf1 include:missing.example -all", "permerror"),
        ("v=spf1 nonsense:x -all", "permerror"),
        ("v=spf1 redirect=example.org", "permerror"),
        ("v=spf1 include:a.example -all", "temperror"),
        ("v=spf1 exists:%{i}.list.example -all", "pass"),
        ("v=spf1 ip6:2001:db8::/32 -all", "fail"),
        ("v=spf1 ptr:client.example -all", "pass"),
        ("v=spf1 mx:mx.example -all", "pass"),
    ],
)
def test_spf(verify: Ask, zone: Zone, record: str, result: str) -> None:
    zone["example.org", "TXT"] = [f'"{record}"']
    zone["example.org", "A"] = ["203.0.113.1"]
    zone["a.example", "TXT"] = ["!"]
    zone["192.0.2.1.list.example", "A"] = ["127.0.0.2"]
    zone["1.2.0.192.in-addr.arpa", "PTR"] = ["client.example."]
    zone["client.example", "A"] = ["192.0.2.1"]
    zone["mx.example", "MX"] = ["10 client.example."]
    assert results(verify())[0].startswith(f"spf={result} ")


@pytest.mark.parametrize(
    "sender",
    [
        b"\xff@\xff",
        b"@",
        b"a@b",
        b"a" * 1000,
        b"a@" + b"a." * 300 + b"org",
        b'"a b"@example.org',
        b"a\n b@example.org",
        b"a@example.org\r\nX: y",
        b"a@[192.0.2.1]",
        b"(a)@example.org;x=y",
    ],
    ids=range(10),
)
def test_a_strange_sender_puts_nothing_strange_into_the_field(verify: Ask, sender: bytes) -> None:
    assert len(results(verify(sender=sender, helo=sender))) == 3
    assert verify(sender=b"", helo=sender).lines.count(b"\n") == 4


def test_an_ipv6_client(verify: Ask, zone: Zone) -> None:
    zone["example.org", "TXT"] = ['"v=spf1 ip6:2001:db8::/32 -all"']
    assert results(verify(address=b"2001:db8::1"))[0].startswith("spf=pass ")
    assert results(verify(address=b"2001:db9::1"))[0].startswith("spf=fail ")
    assert results(verify(address=b""))[0].startswith("spf=none ")


def test_a_header_that_is_too_long_is_not_looked_at(verify: Ask) -> None:
    text = b"X: " + b"y" * 300_000 + b"\n" + TEXT
    assert results(verify(text))[1:] == ["dkim=none", 'dmarc=permerror header.from=""']
    assert verify(text, enforce=True).verdict == wire.REFUSED


def test_the_most_signatures_fit_into_an_answer(verify: Ask, in_file: InFile) -> None:
    tag = b"a" * 60
    domain = b".".join([tag] * 4)
    field = b"DKIM-Signature: v=1; a=rsa-sha256; h=from; bh=AAAA; b=AAAA; d=%b; s=%b\n"
    text = field % (domain, domain) * 9 + TEXT
    answer = verify(text)
    assert wire.parse_answer(wire.pack_answer(answer)) == answer
    assert len(results(answer)) == dkimverify.MOST_SIGNATURES + 2


# The socket.


def test_a_request_and_its_answer(
    served: Callable[[service.Handler], str], in_file: InFile
) -> None:
    seen = []

    def handler(request: Request, descriptor: int, uid: int) -> Answer:
        seen.append((request, os.pread(descriptor, 100, 0), uid))
        return Answer(wire.REFUSED, b"text", b"A: b\n c\n")

    request = Request(wire.VERIFY, b"::1", b"helo", b"a@b", b"id")
    assert wire.ask(served(handler), request, in_file(TEXT), 5) == Answer(
        wire.REFUSED, b"text", b"A: b\n c\n"
    )
    assert seen == [(request, TEXT, os.geteuid())]


def test_a_handler_that_fails_ends_one_connection_only(
    served: Callable[[service.Handler], str], in_file: InFile
) -> None:
    answers: Iterator[Exception | Answer] = iter(
        (ZeroDivisionError(), MemoryError(), Answer(wire.GO_ON))
    )

    def handler(request: Request, descriptor: int, uid: int) -> Answer:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    path = served(handler)
    for _ in range(2):
        with pytest.raises(wire.WireError):
            wire.ask(path, Request(wire.SIGN), in_file(TEXT), 5)
    assert wire.ask(path, Request(wire.SIGN), in_file(TEXT), 5) == Answer(wire.GO_ON)


def test_one_user_does_not_keep_the_others_waiting(
    served: Callable[..., str], in_file: InFile
) -> None:
    path = served(lambda *_: Answer(wire.GO_ON), per_user=2)
    idle = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)]
    try:
        for client in idle:
            client.settimeout(5)
            client.connect(path)
        assert idle[2].recv(100) == b""
        idle[0].close()
        answer, deadline = None, time.monotonic() + 10
        while answer is None and time.monotonic() < deadline:  # until that place is free
            try:
                answer = wire.ask(path, Request(wire.SIGN), in_file(TEXT), 5)
            except (wire.WireError, OSError):
                continue
        assert answer == Answer(wire.GO_ON)
    finally:
        for client in idle:
            client.close()


def test_a_crowd_is_of_one_user_each() -> None:
    crowd = service.Crowd(2)
    assert [crowd.enter(1), crowd.enter(1), crowd.enter(1), crowd.enter(2)] == [True] * 2 + [
        False,
        True,
    ]
    crowd.leave(1)
    assert crowd.enter(1)


def test_what_is_no_request_gets_no_answer(
    served: Callable[[service.Handler], str], in_file: InFile, tmp_path: Path
) -> None:
    path = served(lambda *_: Answer(wire.GO_ON))
    message = in_file(TEXT)
    reading, writing = os.pipe()
    good = wire.pack_request(Request(wire.SIGN))
    try:
        for record, descriptors in (
            (b"nonsense", [message]),
            (good, []),
            (good, [message, message]),
            (good, [reading]),  # a pipe would keep a thread waiting
            (good + b"more", [message]),
        ):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
                client.settimeout(5)
                client.connect(path)
                socket.send_fds(client, [record], descriptors)
                assert client.recv(100) == b""
    finally:
        os.close(reading)
        os.close(writing)
    assert wire.ask(path, Request(wire.SIGN), message, 5) == Answer(wire.GO_ON)


def test_who_is_not_to_be_answered_is_not_waited_for_either(served: Callable[..., str]) -> None:
    path = served(lambda *_: Answer(wire.GO_ON), peers=frozenset((os.getuid() + 1,)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
        silent.settimeout(service.REQUEST_SECONDS / 2)
        silent.connect(path)
        assert silent.recv(100) == b""


def test_who_is_to_be_answered_is(served: Callable[..., str], in_file: InFile) -> None:
    path = served(lambda *_: Answer(wire.GO_ON), peers=frozenset((os.getuid(),)))
    assert wire.ask(path, Request(wire.SIGN), in_file(TEXT), 5) == Answer(wire.GO_ON)


@pytest.mark.parametrize(
    ("arguments", "peers"),
    [([], None), (["-p", "7791"], frozenset((7791, os.geteuid(), 0)))],
)
def test_only_the_mx_is_answered(
    arguments: list[str],
    peers: frozenset[int] | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(service, "prepare", lambda *_: None)
    monkeypatch.setattr(service, "serve", lambda *_, **given: asked.update(given))
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "me").write_text("mail.example.net\n")
    monkeypatch.chdir(tmp_path)
    argv = ["mailauthd", *arguments, "socket"]
    assert verifier.main(argv, {"QMAIL_HOME": str(tmp_path)}) == 0
    assert asked["peers"] == peers


@pytest.mark.parametrize("main", [signer.main, verifier.main])
@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-u", "7803", "keys", "socket"],
        ["-n", "x", "keys", "socket"],
        ["-z", "1", "keys", "socket"],
        ["-u", "0", "-g", "0", "keys", "socket"],
        ["keys", "socket", "more"],
    ],
)
def test_misuse(
    main: Callable[[list[str], dict[str, str]], int], arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "control").mkdir()
    (tmp_path / "control/me").write_text("mail.example.net\n")
    if os.geteuid() and "0" in arguments:
        pytest.skip("only root is refused for becoming root")
    assert main(["daemon", *arguments], {"QMAIL_HOME": str(tmp_path)}) == 100


def test_root_must_become_somebody(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("not root")
    assert signer.main(["dkimsignd", str(tmp_path), str(tmp_path / "socket")], {}) == 100


# The DNS.


class Slow(dns.resolver.Resolver):
    """A resolver that answers for the root only, or not even for that."""

    def __init__(self, *, alive: bool) -> None:
        super().__init__(configure=False)
        self.alive = alive
        self.asked: list[str] = []

    def resolve(self, qname: object, *_: object, **__: object) -> dns.resolver.Answer:
        self.asked.append(str(qname))
        if self.alive and str(qname) == ".":
            return []  # type: ignore[return-value]
        raise dns.exception.Timeout  # what LifetimeTimeout is


def test_a_silent_resolver_is_waited_for_only_once() -> None:
    inner, now = Slow(alive=False), [1000.0]
    resolver = Resolver(inner, clock=lambda: now[0])

    def look_up() -> list[str]:
        inner.asked.clear()
        with pytest.raises(TroubleError):
            Lookups(resolver, 5.0).texts("example.org")
        return list(inner.asked)

    assert look_up() == ["example.org.", "."]  # the question, and whether anybody is there
    assert look_up() == []
    now[0] += SILENCE_SECONDS
    assert look_up() == ["example.org.", "."]


def test_a_domain_whose_servers_are_slow_does_not_silence_the_resolver() -> None:
    """Else its owner could switch authentication off for everybody."""
    inner = Slow(alive=True)
    resolver = Resolver(inner)
    for _ in range(2):
        with pytest.raises(TroubleError):
            Lookups(resolver, 5.0).texts("example.org")
    assert inner.asked == ["example.org.", "."] * 2


def test_look_ups_have_one_deadline(resolver: Resolver) -> None:
    now = [0.0]
    lookups = Lookups(resolver, 5.0, clock=lambda: now[0])
    assert lookups.texts("example.org") == []
    now[0] = 5.0
    with pytest.raises(TroubleError):
        lookups.texts("example.org")


def test_a_message_is_read_once(in_file: InFile) -> None:
    """Its owner can change it meanwhile: what was hashed must be what was looked at."""
    descriptor = in_file(TEXT)
    message = Message(descriptor)
    os.pwrite(descriptor, b"From: mallo@example.org\n", 0)
    assert message.authors() == [b"alice@example.org"]
