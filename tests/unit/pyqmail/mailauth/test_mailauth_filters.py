"""The filters: what they put in front of a message, what they take out of it, and when not."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyqmail.mailauth import authservid, fields, filters, received, service, wire
from pyqmail.mailauth.wire import Answer, Request

OURS = b"mail.example.net"
TEXT = (
    b"Received: from unknown (HELO client.example) (192.0.2.1)\n"
    b"  by mail.example.net with SMTP; 22 Nov 2026 19:00:00 -0000\n"
    b"From: alice@example.org\n"
    b"\n"
    b"body\n"
)
LINES = b"Authentication-Results: mail.example.net; spf=pass;\n\tdkim=none\n"


class Outcome(NamedTuple):
    """What a filter did."""

    status: int
    output: bytes
    text: bytes  # on descriptor 4


Run = Callable[..., Outcome]
Served = Callable[[service.Handler], str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A function: filter, message -> what it did, in a child with descriptors of its own."""
    (tmp_path / "control").mkdir()
    (tmp_path / "control/me").write_bytes(OURS + b"\n")

    def start(
        main: Callable[[list[str], dict[str, str]], int],
        message: bytes = TEXT,
        *following: str,
        piped: bool = False,
        **env: str,
    ) -> Outcome:
        given, output, text = (os.memfd_create(name) for name in ("given", "output", "text"))
        if piped:
            given, writing = os.pipe()
            os.write(writing, message)
            os.close(writing)
        else:
            view = memoryview(message)
            while view:
                view = view[os.write(given, view) :]
            os.lseek(given, 0, os.SEEK_SET)
        pid = os.fork()
        if not pid:
            status = 99
            try:
                for ours, wanted in ((given, 0), (output, 1), (text, 4)):
                    os.dup2(ours, wanted)
                status = main(["filter", *following], {"QMAIL_HOME": str(tmp_path), **env})
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        read = [os.pread(place, 1 << 24, 0) for place in (output, text)]
        for descriptor in (given, output, text):
            os.close(descriptor)
        return Outcome(status, *read)

    return start


@pytest.fixture
def daemon(served: Served) -> Callable[[Answer], list[tuple[Request, bytes]]]:
    """A function: answer -> list of what it will have been asked; listens where dkimsignd does."""

    def start(answer: Answer) -> list[tuple[Request, bytes]]:
        asked = []

        def handler(request: Request, descriptor: int, uid: int) -> Answer:
            asked.append((request, os.pread(descriptor, 1 << 24, 0)))
            return answer

        served(handler)
        return asked

    return start


Daemon = Callable[[Answer], list[tuple[Request, bytes]]]


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    path = str(tmp_path / "socket")
    return {"DKIMSIGN_SOCKET": path, "MAILAUTH_SOCKET": path}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "PAUSE_SECONDS", 0.0)


Place = dict[str, str]


@pytest.mark.parametrize("piped", [False, True])
def test_the_signature_comes_first(run: Run, daemon: Daemon, place: Place, piped: bool) -> None:
    asked = daemon(Answer(wire.GO_ON, lines=b"DKIM-Signature: x\n"))
    outcome = run(filters.dkimsign, piped=piped, SESSION_ID="id", **place)
    assert outcome == Outcome(0, b"DKIM-Signature: x\n" + TEXT, b"")
    assert asked == [(Request(wire.SIGN, session=b"id"), TEXT)]


def test_what_is_not_signed_stays_as_it_is(run: Run, daemon: Daemon, place: Place) -> None:
    daemon(Answer(wire.GO_ON))
    assert run(filters.dkimsign, **place) == Outcome(0, b"", b"")
    assert run(filters.dkimsign, piped=True, **place) == Outcome(0, TEXT, b"")


def test_the_next_filter_runs_in_the_same_process(run: Run, daemon: Daemon, place: Place) -> None:
    daemon(Answer(wire.GO_ON, lines=b"DKIM-Signature: x\n"))
    tls = {"SSL_CIPHER": "c", "SSL_PROTOCOL": "p", "AUTHUP_USER": "alice"}
    outcome = run(filters.dkimsign, TEXT, "qmail-qfilter-addtlsheader", **tls, **place)
    assert outcome.status == 0
    first, second, rest = outcome.output.split(b"\n", 2)
    assert first == b"DKIM-Signature: x"
    assert second.startswith(b"Received: (ucspitls acceptutils authup alice p c); ")
    assert rest == TEXT
    # A foreign one is executed, and its exit status is ours.
    outcome = run(filters.dkimsign, TEXT, "sh", "-c", "head -c 4; exit 31", **place)
    assert outcome == Outcome(31, b"DKIM-Signature: x\nRece", b"")


@pytest.mark.usefixtures("impatient")
def test_without_the_signer_mail_waits(run: Run, place: Place) -> None:
    outcome = run(filters.dkimsign, **place)
    assert (outcome.status, outcome.output) == (82, b"")
    assert outcome.text.startswith(b"Zmail cannot be signed right now")


def test_what_is_known_of_the_client_is_told(run: Run, daemon: Daemon, place: Place) -> None:
    asked = daemon(Answer(wire.GO_ON, lines=LINES))
    known = {"TCPREMOTEIP": "192.0.2.1", "QMAILUSER": "a@b", "QMAILHOST": "c", "SESSION_ID": "s"}
    assert run(filters.authresults, **known, **place) == Outcome(0, LINES + TEXT, b"")
    request = Request(wire.VERIFY, b"192.0.2.1", b"client.example", b"a@b@c", b"s")
    assert asked == [(request, TEXT)]


@pytest.mark.parametrize("verdict", [b"D", b"Z"])
def test_a_refusal_reaches_the_client(
    run: Run, daemon: Daemon, place: Place, verdict: bytes
) -> None:
    daemon(Answer(verdict, b"because (#5.7.1)"))
    assert run(filters.authresults, **place) == Outcome(82, b"", verdict + b"because (#5.7.1)")


@pytest.mark.usefixtures("impatient")
def test_a_daemon_that_ends_over_a_message_is_asked_twice_at_most(
    run: Run, place: Place, served: Served
) -> None:
    asked = []

    def handler(request: Request, descriptor: int, uid: int) -> Answer:
        asked.append(request)
        raise ZeroDivisionError

    served(handler)
    assert run(filters.authresults, **place) == Outcome(0, b"", b"")
    assert len(asked) == 2


FORGED = b"Authentication-Results: mail.example.net; dkim=pass header.d=bank.example\n"


@pytest.mark.parametrize("following", [[], ["cat"]])
def test_forged_results_are_removed(
    run: Run, daemon: Daemon, place: Place, following: list[str]
) -> None:
    asked = daemon(Answer(wire.GO_ON, lines=LINES))
    others = b"Authentication-Results: other.example; dkim=pass\n"
    text = TEXT.replace(b"From:", FORGED + others + b"aUTHENTICATION-rESULTS :\n\t(x)\n MAIL."
                        b"example.NET.\n ;\n spf=pass\nFrom:")  # fmt: skip
    outcome = run(filters.authresults, text, *following, **place)
    assert outcome.output == LINES + TEXT.replace(b"From:", others + b"From:")
    assert asked[0][1] == text  # a signature may cover them


@pytest.mark.usefixtures("impatient")
def test_without_the_verifier_mail_arrives_and_forgeries_do_not(run: Run, place: Place) -> None:
    assert run(filters.authresults, **place) == Outcome(0, b"", b"")
    assert run(filters.authresults, FORGED + TEXT, **place) == Outcome(0, TEXT, b"")
    outcome = run(filters.authresults, MAILAUTH_REQUIRED="1", **place)
    assert (outcome.status, outcome.text[:1]) == (82, b"Z")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n",
        b"\nAuthentication-Results: mail.example.net; dkim=pass\n",
        b"no header\n\nbody\n",
        b"From: a\nno end",
        b"From: a\r\n\r\nAuthentication-Results: mail.example.net; x\r\n",
        b"From: a\n" + b"\n" * 200_000,
        b"From: a\n\n" + bytes(range(256)) * 1000,
    ],
    ids=range(8),
)
def test_odd_messages_stay_as_they_are(run: Run, daemon: Daemon, place: Place, text: bytes) -> None:
    daemon(Answer(wire.GO_ON, lines=LINES))
    for following in ([], ["cat"]):
        assert run(filters.authresults, text, *following, **place).output == LINES + text


def test_a_header_without_end_is_refused(run: Run, place: Place) -> None:
    """Else a forged field could hide behind what is looked at."""
    text = b"X: " + b"y" * (1 << 21) + b"\n" + FORGED + b"\n"
    outcome = run(filters.authresults, text, **place)
    assert (outcome.status, outcome.text[:1]) == (82, b"D")


def test_without_a_name_of_our_own_nothing_goes_on(run: Run, place: Place, tmp_path: Path) -> None:
    (tmp_path / "control/me").unlink()
    assert run(filters.authresults, **place).status == 55


@pytest.mark.parametrize(
    "value",
    [
        b" mail.example.net; x",
        b"MAIL.EXAMPLE.NET",
        b"\n\tmail.example.net\n\t1;",
        b" (c (d) \\) e) mail.example.net;",
        b' "mail.example.net"; x',
        b' "mail\\.example.net"; x',
        b"mail.example.net.",
        b"mail.example.net(c)",
        # What cannot be read:
        b"",
        b" ",
        b" ;",
        b"(",
        b'"mail',
        b") mail.example.net",
    ],
)
def test_what_claims_to_be_ours(value: bytes) -> None:
    assert authservid.claims(value, OURS)


@pytest.mark.parametrize(
    "value",
    [
        b" other.example; mail.example.net",
        b"mail.example.net.example.com;",
        b"xmail.example.net; x",
        b"(mail.example.net) other.example;",
        b'"other mail.example.net";',
    ],
)
def test_what_does_not(value: bytes) -> None:
    assert not authservid.claims(value, OURS)


@given(st.binary(max_size=60))
def test_any_header_is_the_sum_of_its_fields(header: bytes) -> None:
    assert b"".join(field.raw for field in fields.split(header)) == header


@given(st.text('(")\\; a.\n\t', max_size=20).map(str.encode))
def test_any_value_is_judged(value: bytes) -> None:
    assert isinstance(authservid.claims(value, b"a"), bool)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"Received: from unknown (HELO a.b) (1.2.3.4)\n", b"a.b"),
        (b"Received: from host.example (HELO a.b) (x@1.2.3.4)\n", b"a.b"),
        (b"Received: from host.example (1.2.3.4)\n", b"host.example"),
        (b"Received: from unknown (1.2.3.4)\n", b""),
        (b"Received: from unknown (HELO ) (1.2.3.4)\n", b""),
        (b"Received: from unknown (HELO [1.2.3.4]) (::1)\n", b"[1.2.3.4]"),
        (b"Received: (qmail 1 invoked by uid 7)\n", b""),
        (b"X: y\nReceived: from unknown (HELO a.b) (1.2.3.4)\n", b""),
    ],
)
def test_the_name_in_helo(line: bytes, name: bytes) -> None:
    assert received.helo(line) == name


@pytest.mark.parametrize(
    "record", [b"", b"K", b"X\0", b"Ktext", b"K\0no end", b"K\0A: b\n\nC: d\n", b"K\0 continued\n"]
)
def test_what_is_no_answer(record: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.parse_answer(record)
