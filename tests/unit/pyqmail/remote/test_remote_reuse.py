"""Several messages over one connection: when, and that nothing fails for it."""

import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyqmail.remote import sender as sender_module
from pyqmail.remote.sender import Sender

Sink = Any  # it is in conftest.py
Deliver = Callable[..., bytes]
ACCEPTED = b"r\0K127.0.0.1 accepted message.\nRemote host said: 250 queued\n\0"
ENVELOPE = b"MAIL FROM:<sam@example.org>\r\nRCPT TO:<joe@example.net>\r\nDATA\r\n"


@pytest.fixture
def sender(home: Path) -> Iterator[Sender]:
    made = Sender({"QMAIL_HOME": str(home)})
    yield made
    made.leave()


@pytest.fixture
def deliver(home: Path, sender: Sender) -> Iterator[Deliver]:
    """Have the same sender deliver a message, and return its reports."""
    kept, here = os.dup(0), os.getcwd()

    def run(number: int = 1, host: bytes = b"example.net") -> bytes:
        (home / "message").write_bytes(b"Subject: %d\n\n" % number)
        source = os.open(home / "message", os.O_RDONLY)
        os.dup2(source, 0)
        os.close(source)
        return b"".join(sender.deliver([host, b"sam@example.org", b"joe@" + host]))

    yield run
    os.dup2(kept, 0)
    os.close(kept)
    os.chdir(here)


class Nth(dict[str, Any]):
    """Replies of which some differ at the nth time that they are asked for."""

    def __init__(self, **special: tuple[int, str | None]) -> None:
        super().__init__()
        self.special = special
        self.asked: dict[str, int] = {}

    def get(self, key: str, default: Any = None) -> Any:
        self.asked[key] = self.asked.get(key, 0) + 1
        when, reply = self.special.get(key, (0, None))
        return reply if when == self.asked[key] else default


def data(number: int) -> bytes:
    return b"Subject: %d\r\n\r\n.\r\n" % number


def test_messages_byte_for_byte(deliver: Deliver, sender: Sender, sink: Sink) -> None:
    assert [deliver(1), deliver(2), deliver(3)] == [ACCEPTED] * 3
    sender.leave()
    sink.close()
    assert sink.records == [
        b"EHLO client.example.org\r\n"
        + ENVELOPE
        + data(1)
        + b"RSET\r\n"
        + ENVELOPE
        + data(2)
        + b"RSET\r\n"
        + ENVELOPE
        + data(3)
        + b"QUIT\r\n"
    ]


def test_reset_is_pipelined(deliver: Deliver, sink: Sink) -> None:
    sink.extensions = ["PIPELINING"]
    assert [deliver(1), deliver(2)] == [ACCEPTED] * 2
    assert b"RSET\r\n" + ENVELOPE in sink.batches


def test_tls_stays(deliver: Deliver, sender: Sender, secure_sink: Sink) -> None:
    assert [deliver(1), deliver(2)] == [ACCEPTED] * 2
    assert secure_sink.secure == [True]
    assert secure_sink.messages == [data(1), data(2)]
    assert sender.summary.startswith("TLSv1.3 TLS_")
    assert sender.summary.endswith(" unverified, message 2 of the connection ip=127.0.0.1")


@pytest.mark.parametrize("extensions", [[], ["PIPELINING"]])
@pytest.mark.parametrize(
    "second",
    [
        {"RSET": (1, None)},
        {"RSET": (1, "421 idle for too long")},
        {"RSET": (1, "502 what is that")},
        {"MAIL": (2, None)},
        {"MAIL": (2, "421 too many messages")},
        {"MAIL": (2, "452 too many messages")},
        {"MAIL": (2, "550 too many messages")},
        {"RCPT": (2, None)},
        {"RCPT": (2, "421 going down")},
        {"DATA": (3, None)},  # the sink asks for its reply twice per message
        {"DATA": (3, "421 going down")},
        {"message": (2, "421 going down")},
        {"RSET": (1, "this is no reply")},
    ],
)
def test_what_ends_an_old_connection_is_no_failure(
    deliver: Deliver, sink: Sink, second: dict[str, Any], extensions: list[str]
) -> None:
    sink.extensions = extensions
    sink.replies = Nth(**second)
    assert [deliver(1), deliver(2)] == [ACCEPTED] * 2
    assert len(sink.records) == 2
    assert sink.messages[0] == data(1)
    assert sink.messages[-1] == data(2)


def test_a_server_that_was_restarted_meanwhile(deliver: Deliver, home: Path, sink: Sink) -> None:
    assert deliver(1) == ACCEPTED
    port = sink.port
    sink.cut()
    again = type(sink)(port=port)
    assert deliver(2) == ACCEPTED
    assert again.messages == [data(2)]
    again.cut()


def test_a_duplicate_is_told_from_a_stale_connection(deliver: Deliver, sink: Sink) -> None:
    """Once the message was sent to its end nobody knows what the server did with it."""
    sink.replies = Nth(message=(2, None))
    assert deliver(1) == ACCEPTED
    text = b"r\0ZConnected to 127.0.0.1 but connection died. Possible duplicate! (#4.4.2)\n\0"
    assert deliver(2) == text
    assert len(sink.records) == 1


@pytest.mark.parametrize(
    ("step", "reply", "report"),
    [
        ("MAIL", "550 no", b"DConnected to 127.0.0.1 but sender was rejected.\n"),
        ("MAIL", "421 no", b"ZConnected to 127.0.0.1 but sender was rejected.\n"),
        ("RCPT", "421 no", b"s127.0.0.1 does not like recipient.\n"),
        ("DATA", "421 no", b"r\0Z127.0.0.1 failed on DATA command.\n"),
        ("message", "421 no", b"r\0Z127.0.0.1 failed after I sent the message.\n"),
    ],
)
def test_a_new_connections_word_counts(
    deliver: Deliver, sink: Sink, step: str, reply: str, report: bytes
) -> None:
    sink.replies[step] = reply
    assert deliver().startswith(report)
    assert len(sink.records) == 1


def test_a_refusal_is_asked_for_twice_only_on_an_old_connection(
    deliver: Deliver, sink: Sink
) -> None:
    assert deliver(1) == ACCEPTED
    sink.replies["MAIL"] = "550 not you"
    assert deliver(2).startswith(b"DConnected to 127.0.0.1 but sender was rejected.\n")
    assert len(sink.records) == 2


@pytest.mark.parametrize("step", ["RCPT", "message"])
def test_after_a_refusal_the_connection_is_still_good(
    deliver: Deliver, sink: Sink, step: str
) -> None:
    sink.replies = Nth(**{step: (1, "550 no")})
    assert deliver(1) != ACCEPTED
    assert deliver(2) == ACCEPTED
    assert len(sink.records) == 1


def test_a_reply_too_many_ends_it(deliver: Deliver, sink: Sink) -> None:
    sink.replies = Nth(message=(1, "250 queued\r\n250 and queued"))
    deliver(1)
    assert deliver(2) == ACCEPTED
    assert len(sink.records) == 2


def test_a_connection_takes_so_many_messages(
    deliver: Deliver, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "CONNECTION_MESSAGES", 2)
    for number in range(5):
        assert deliver(number) == ACCEPTED
    assert [record.count(b"MAIL FROM") for record in sink.records] == [2, 2, 1]
    assert sink.records[0].endswith(b"QUIT\r\n")


def test_an_old_connection_is_not_used_for_ever(
    deliver: Deliver, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "CONNECTION_SECONDS", 0.0)
    assert [deliver(1), deliver(2)] == [ACCEPTED] * 2
    assert len(sink.records) == 2


def test_domains_behind_one_relay_share_it(deliver: Deliver, sink: Sink) -> None:
    assert [deliver(1), deliver(2, b"other.example")] == [ACCEPTED] * 2
    assert len(sink.records) == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("tlsdestinations", "127.0.0.1:require\n"),
        ("helohost", "another.example.org\n"),
        ("smtproutes", ":[127.0.0.1]:{port}\n"),
        ("smtproutes", ":127.0.0.1:{port} joe secret\n"),
    ],
)
def test_settings_that_change_mean_a_new_connection(
    deliver: Deliver, sink: Sink, certificate: Path, home: Path, file: str, text: str
) -> None:
    assert deliver(1) == ACCEPTED
    sink.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    sink.context.load_cert_chain(certificate)
    (home / "control" / file).write_text(text.format(port=sink.port))
    deliver(2)
    assert len(sink.records) == 2
    assert sink.records[0].endswith(b"QUIT\r\n")


def test_what_is_kept_is_one_descriptor(deliver: Deliver, sender: Sender) -> None:
    assert sender.descriptors() == ()
    deliver()
    (kept,) = sender.descriptors()
    os.fstat(kept)
    sender.leave()
    assert sender.descriptors() == ()
