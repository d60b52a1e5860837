"""Only CR LF . CR LF ends a message: every look-alike is what SMTP smuggling is made of."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docker.models.containers import Container
from harness import appliance as harness
from harness import mail, wait
from harness.appliance import Appliance
from harness.clients import FETCHERS, Account, Endpoint
from harness.dialogue import Dialogue

LOOK_ALIKES = {
    "LF.LF": b"\n.\n",
    "LF.CRLF": b"\n.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "LF.CR": b"\n.\r",
    "CR.LF": b"\r.\n",
    "CR.CRLF": b"\r.\r\n",
    "CR.CR": b"\r.\r",
    "CRLF.CR": b"\r\n.\r",
    "CRLF.CRCRLF": b"\r\n.\r\r\n",
    "CRCRLF.CRCRLF": b"\r\r\n.\r\r\n",
    "CRCRLF.CRLF": b"\r\r\n.\r\n",
    "CRLF.NULCRLF": b"\r\n.\0\r\n",
    "CRLFNUL.CRLF": b"\r\n\0.\r\n",
}
STRAY = b"451 See http://pobox.com/~djb/docs/smtplf.html.\r\n"
SMUGGLED = b"MAIL FROM:<smuggled@outside.example>\r\nRCPT TO:<%b>\r\nDATA\r\nsmuggled\r\n.\r\n"


def begin(dialogue: Dialogue, sender: bytes, to: bytes) -> Dialogue:
    """Return the dialogue, ready for data."""
    assert dialogue.code(b"MAIL FROM:<" + sender + b">") == b"250"
    assert dialogue.code(b"RCPT TO:<" + to + b">") == b"250"
    assert dialogue.code(b"DATA") == b"354"
    return dialogue


def open_mx(at: Endpoint, account: Account, to: bytes) -> Dialogue:
    """Return a dialogue on the MX that is ready for data."""
    dialogue = Dialogue(at, "mx")
    dialogue.say(b"EHLO outside.example")
    return begin(dialogue, b"someone@outside.example", to)


def open_mx_in_tls(at: Endpoint, account: Account, to: bytes) -> Dialogue:
    """Return the same inside TLS."""
    dialogue = Dialogue(at, "mx")
    dialogue.say(b"EHLO outside.example")
    dialogue.start_tls()
    dialogue.say(b"EHLO outside.example")
    return begin(dialogue, b"someone@outside.example", to)


def open_submission(at: Endpoint, account: Account, to: bytes) -> Dialogue:
    """Return a dialogue on submission, inside TLS and after AUTH, that is ready for data."""
    dialogue = Dialogue(at, "submission")
    dialogue.say(b"EHLO client.example")
    dialogue.start_tls()
    dialogue.log_in(account)
    return begin(dialogue, account.address.encode(), to)


def open_submissions(at: Endpoint, account: Account, to: bytes) -> Dialogue:
    """Return the same where TLS comes first."""
    dialogue = Dialogue(at, "submissions")
    dialogue.log_in(account)
    return begin(dialogue, account.address.encode(), to)


Opener = Callable[[Endpoint, Account, bytes], Dialogue]
OPENERS: dict[str, Opener] = {
    "mx": open_mx,
    "mx in TLS": open_mx_in_tls,
    "submission": open_submission,
    "submissions": open_submissions,
}


@pytest.fixture(params=OPENERS)
def opened(request: pytest.FixtureRequest) -> Opener:
    """Each way into the appliance."""
    return OPENERS[request.param]


def head(account: Account) -> bytes:
    """Return a header that passes the sender check."""
    address = account.address.encode()
    return b"From: <" + address + b">\r\nTo: <" + address + b">\r\nSubject: data\r\n\r\n"


def fetch(at: Endpoint, account: Account, scratch: Path) -> list[bytes]:
    """Return the mailbox of account."""
    return FETCHERS["poplib-implicit"](at, account, scratch)


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_a_look_alike_ends_nothing(
    name: str, opened: Opener, at: Endpoint, account: Account, tmp_path: Path
) -> None:
    to = account.address.encode()
    with opened(at, account, to) as dialogue:
        first = head(account) + b"before" + LOOK_ALIKES[name]
        dialogue.send(first + SMUGGLED % to + b"\r\n.\r\nQUIT\r\n")
        answer = dialogue.rest()
    accepted = answer.count(b"250 ok ")
    # Refused as a whole, or one message with everything inside up to the first true end.
    if accepted:
        assert not answer.startswith(b"451"), answer
        found = wait.until("the message", lambda: fetch(at, account, tmp_path))
        assert len(found) == 1
        assert b"MAIL FROM:<smuggled@outside.example>" in mail.body_of(found[0])
        assert mail.header(found[0], "Return-Path") != [b"<smuggled@outside.example>"]
    else:
        assert answer == STRAY or (b"\0" in LOOK_ALIKES[name] and answer.startswith(b"554 NUL"))
        assert answer.count(b"\r\n") == 1
        marker = mail.compose(account.address, account.address)
        with opened(at, account, to) as dialogue:
            dialogue.send(marker.raw.replace(b"\r\n.", b"\r\n..") + b".\r\n")
            assert dialogue.reply()[-1].startswith(b"250 ok ")
        found = wait.until("the marker", lambda: fetch(at, account, tmp_path))
        assert [mail.body_of(raw) for raw in found] == [marker.body]


@pytest.mark.parametrize("split", range(6))
def test_the_end_of_data_is_found_across_every_split(
    split: int, opened: Opener, at: Endpoint, account: Account, tmp_path: Path
) -> None:
    whole = head(account) + b"text\r\n.\r\n"
    offset = len(whole) - split
    with opened(at, account, account.address.encode()) as dialogue:
        dialogue.send(whole[:offset])
        if split:
            assert dialogue.silent(0.15)
        dialogue.send(whole[offset:])
        assert dialogue.reply()[-1].startswith(b"250 ok ")
        assert dialogue.code(b"QUIT") == b"221"
    (got,) = wait.until("the message", lambda: fetch(at, account, tmp_path))
    assert mail.body_of(got) == b"text\r\n"


def test_dot_and_quit_in_one_segment_are_both_answered(
    opened: Opener, at: Endpoint, account: Account
) -> None:
    with opened(at, account, account.address.encode()) as dialogue:
        dialogue.send(head(account) + b"text\r\n.\r\nQUIT\r\n")
        answer = dialogue.rest()
    assert answer.startswith(b"250 ok ")
    assert answer.count(b"\r\n") == 2
    assert b"\r\n221 " in answer


def test_a_dot_right_after_data_is_an_empty_message(
    opened: Opener, at: Endpoint, account: Account
) -> None:
    with opened(at, account, account.address.encode()) as dialogue:
        dialogue.send(b".\r\n")
        assert dialogue.reply()[-1][:3] in (b"250", b"554", b"553", b"550")
        assert dialogue.code(b"NOOP") == b"250"


def test_end_of_file_in_data_queues_nothing(
    opened: Opener, at: Endpoint, account: Account, tmp_path: Path
) -> None:
    to = account.address.encode()
    with opened(at, account, to) as dialogue:
        dialogue.send(head(account) + b"no end\r\n")
    with opened(at, account, to) as dialogue:
        dialogue.send(head(account) + b"with an end\r\n.\r\n")
        assert dialogue.reply()[-1].startswith(b"250 ok ")
    found = wait.until("the message", lambda: fetch(at, account, tmp_path))
    assert [mail.body_of(raw) for raw in found] == [b"with an end\r\n"]


def test_a_reset_connection_in_data_queues_nothing(
    at: Endpoint, account: Account, tmp_path: Path
) -> None:
    import socket
    import struct

    to = account.address.encode()
    with open_mx(at, account, to) as dialogue:
        dialogue.send(head(account) + b"no end\r\n")
        linger = struct.pack("ii", 1, 0)
        dialogue.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    with open_mx(at, account, to) as dialogue:
        dialogue.send(head(account) + b"with an end\r\n.\r\n")
        assert dialogue.reply()[-1].startswith(b"250 ok ")
    found = wait.until("the message", lambda: fetch(at, account, tmp_path))
    assert [mail.body_of(raw) for raw in found] == [b"with an end\r\n"]


@pytest.fixture(scope="module")
def sink(appliance: Appliance) -> Iterator[Container]:
    """A container named ``sink`` that records what it is sent."""
    client = harness.client()
    network = next(iter(appliance.container.attrs["NetworkSettings"]["Networks"]))
    source = (Path(harness.__file__).parent / "sink.py").read_text()
    container = client.containers.create(
        appliance.image, entrypoint=["python3", "-I", "-c", source, "2525"], user="7791"
    )
    try:
        client.networks.get(network).connect(container, aliases=["sink"])
        container.start()
        yield container
    finally:
        container.remove(force=True, v=True)
        client.close()


def recordings(sink: Container) -> list[bytes]:
    """Return the bytes of each connection that the sink has seen to its end."""
    return [bytes.fromhex(line) for line in sink.logs(stderr=False).decode().split()]


def test_a_relayed_copy_has_exactly_one_end_of_data(
    at: Endpoint, account: Account, sink: Container
) -> None:
    # Every look-alike that can be queued at all, and a body that is dots and empty lines.
    body = b".\r\n..\r\n\r\n.x\r\n" + b"\r\n".join(mail.AWKWARD_LINES) + b"\r\n"
    before = len(recordings(sink))
    with open_submission(at, account, b"victim@sink.test") as dialogue:
        dialogue.send((head(account) + body).replace(b"\r\n.", b"\r\n..") + b".\r\n")
        assert dialogue.reply()[-1].startswith(b"250 ok ")
    wait.until("the relayed copy", lambda: len(recordings(sink)) > before, seconds=60)
    (recorded,) = recordings(sink)[before:]
    assert recorded.count(b"\r\n.\r\n") == 1
    assert recorded.upper().endswith(b"\r\n.\r\nQUIT\r\n")
    assert recorded.count(b"\nMAIL FROM") + recorded.count(b"\nmail from") <= 1
    data = recorded.partition(b"DATA\r\n")[2].partition(b"\r\n.\r\n")[0] + b"\r\n"
    assert mail.body_of(data).replace(b"\r\n.", b"\r\n").removeprefix(b".") == body
    assert b"\n" not in recorded.replace(b"\r\n", b"")
    assert b"\r" not in recorded.replace(b"\r\n", b"")
