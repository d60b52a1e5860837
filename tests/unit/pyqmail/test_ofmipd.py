"""ofmipd: dialogues, headers, and whose address is whose."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pyqmail
from pyqmail.header.fields import HeaderReader, join
from pyqmail.ofmipd import program
from pyqmail.queue.errors import Result
from ucspi import cdb

GREETING = b"220 ofmipd.local ESMTP\r\n"
PEER = {"TCPREMOTEIP": "192.0.2.9"}
WHOLE = b"Date: d\nMessage-ID: <m@x>\nFrom: a@b.c\nTo: x@y.z\n"
NOT_YOURS = b"553 sorry, that sender does not belong to you (#5.7.1)\r\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A qmail home, and beside it a user's home."""
    for name in ("qmail/control", "qmail/users", "user/.ofmipd"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "qmail/control/me").write_text("mx.example.org\n")
    (tmp_path / "qmail/control/defaulthost").write_text("example.org\n")
    (tmp_path / "qmail/control/defaultdomain").write_text("example.org\n")
    return tmp_path


@pytest.fixture
def serve(home, script, fake_queue, monkeypatch):
    """Return a function: pieces, further arguments and environment -> status, output."""

    def run(*pieces: bytes, argv: tuple[str, ...] = (), **more: str) -> tuple[int, bytes]:
        monkeypatch.chdir(home / "user")
        env = {"QMAIL_HOME": str(home / "qmail"), "HOME": str(home / "user"), **PEER, **more}
        channel = script(pieces)
        monkeypatch.setattr(program, "Channel", lambda *_: channel)
        status = program.main(["ofmipd", *argv], env)
        return status, channel.output

    return run


@pytest.fixture
def send(serve, fake_queue):
    """Return a function: message in Unix lines -> what was queued, or the refusal."""

    def run(message: bytes, sender: bytes = b"a@b.c", **more) -> bytes:
        fake_queue.mails.clear()
        _, output = serve(
            b"MAIL FROM:<%s>\r\nRCPT TO:<x@y.z>\r\nDATA\r\n" % sender,
            re.sub(rb"^\.", b"..", message, flags=re.M).replace(b"\n", b"\r\n") + b".\r\n",
            **more,
        )
        if not fake_queue.queued:
            return output.splitlines(keepends=True)[-1]
        first, rest = fake_queue.queued[0].message.split(b"\n", 1)
        assert re.fullmatch(
            rb"Received: \(ofmipd 192\.0\.2\.9\); \d+ \w{3} \d{4} \d\d:\d\d:\d\d -0000", first
        )
        return rest

    return run


def replies(output: bytes) -> bytes:
    assert output.startswith(GREETING)
    return re.sub(rb"250 ok \d+ qp \d+", b"250 ok N qp N", output[len(GREETING) :])


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        (b"HELO x\r\n", b"250 ofmipd.local\r\n"),
        (
            b"EHLO x\r\n",
            b"250-ofmipd.local\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n",
        ),
        (b"HELP\r\n", b"214 qmail home page: http://pobox.com/~djb/qmail.html\r\n"),
        (b"VRFY x\r\n", b"252 send some mail, i'll try my best\r\n"),
        (b"EXPN x\r\n", b"502 unimplemented (#5.5.1)\r\n"),
        (b"RCPT you:<x@y>\r\n", b"503 MAIL first (#5.5.1)\r\n"),
        (b"MAIL me: one\r\nRCPT you: two\r\n", b"250 ok\r\n250 ok\r\n"),
        (b"MAIL FROM:<a@b> AUTH=<> SIZE=1\r\n", b"250 ok\r\n"),
        (b"MAIL FROM:<a@b> SMTPUTF8\r\n", b"555 syntax error (#5.5.4)\r\n"),
        (b"MAIL FROM:<%s>\r\n" % (b"x" * 890), b"555 syntax error (#5.5.4)\r\n"),
        (b"MAIL FROM:<>\r\nRCPT TO:<>\r\n", b"250 ok\r\n555 syntax error (#5.5.4)\r\n"),
    ],
)
def test_reply(serve, said: bytes, answered: bytes) -> None:
    status, output = serve(said + b"QUIT\r\n")
    assert (status, replies(output)) == (0, answered + b"221 ofmipd.local\r\n")


def test_envelope_is_rewritten(serve, fake_queue) -> None:
    serve(b"MAIL FROM:<joe>\r\nRCPT TO:<x@y>\r\nRCPT TO:<z@a.b.>\r\nDATA\r\n.\r\n")
    [mail] = fake_queue.queued
    assert mail.sender == b"joe@example.org"
    assert mail.recipients == [b"x@y.example.org", b"z@a.b"]


def test_null_sender_stays_null(serve, fake_queue) -> None:
    serve(b"MAIL FROM:<>\r\nRCPT TO:<x@y.z>\r\nDATA\r\n.\r\n")
    assert fake_queue.queued[0].sender == b""


def test_rewrite_file_replaces_the_defaults(serve, home: Path, fake_queue) -> None:
    (home / "qmail/control/rewrite").write_text("# mine\n=:lists.example\n-.local:example.org\n")
    serve(b"MAIL FROM:<joe>\r\nRCPT TO:<x@me.Local>\r\nRCPT TO:<x@y>\r\nDATA\r\n.\r\n")
    [mail] = fake_queue.queued
    assert mail.sender == b"joe@lists.example"
    assert mail.recipients == [b"x@example.org", b"x@y"]


def test_whole_header_is_passed_on_byte_for_byte(send) -> None:
    message = (
        WHOLE
        + b"Subject: =?utf-8?q?x?=\n\tfolded \xff\nX-Empty:\nReceived: old\nreply-to : a@b.c\n"
        b"\n.body\n\nFrom nobody\n"
    )
    assert send(message) == message


def test_addresses_in_header_are_rewritten_and_nothing_else(send) -> None:
    assert send(
        b"Date: d\nmessage-id: <m@x>\nFrom: \"J\xf6\" <joe>\nSubject: joe\nTO: a,\n b@cs (c)\n"
        b"Reply-To: open (\nX-To: joe\n\n"
    ) == (
        b"Date: d\nmessage-id: <m@x>\nFrom: \"J\xf6\" <joe@example.org>\nSubject: joe\n"
        b"TO: a@example.org,\n b@cs.example.org (c)\nReply-To: open (\nX-To: joe\n\n"
    )  # fmt: skip


def test_fields_that_nobody_must_see_are_dropped(send) -> None:
    hidden = (
        b"Bcc: secret@x\n , folded@x\nbcc : s@x\nApparently-To: y\n"
        b"Content-Length: 4\nReturn-Path: <z>\n"
    )
    assert send(WHOLE + hidden + b"X-Bcc: kept\n\nBcc: body\n") == (
        WHOLE + b"X-Bcc: kept\n\nBcc: body\n"
    )


def test_missing_fields_are_added(send) -> None:
    result = send(b"Received: old\n x\nSubject: x\n\nbody\n", sender=b'"a b"@c')
    assert re.fullmatch(
        rb"Received: old\n x\n"
        rb"Date: \d+ \w{3} \d{4} \d\d:\d\d:\d\d -0000\n"
        rb"Message-ID: <\d{14}\.1\.\d+\.qmail@mx\.example\.org>\n"
        rb'From: "a b"@c\.example\.org\n'
        rb"Cc: recipient list not shown: ;\n"
        rb"Subject: x\n\nbody\n",
        result,
    )


def test_no_author_is_invented_for_a_null_sender(send) -> None:
    assert b"From:" not in send(b"To: x@y.z\n\n", sender=b"")


@pytest.mark.parametrize(
    ("message", "result"),
    [
        (WHOLE, WHOLE + b"\n"),
        (WHOLE + b"\n", WHOLE + b"\n"),
        (WHOLE + b"no field\n", WHOLE + b"\nno field\n"),
        (WHOLE + b"From joe Mon Jan 1 00:00:00\n", WHOLE + b"\nFrom joe Mon Jan 1 00:00:00\n"),
        (WHOLE + b": x\n", WHOLE + b"\n: x\n"),
        (WHOLE + b"b\xe4d: x\n", WHOLE + b"\nb\xe4d: x\n"),
    ],
)
def test_where_the_header_ends(send, message: bytes, result: bytes) -> None:
    assert send(message) == result


def test_message_that_begins_with_a_continuation_has_no_header(send) -> None:
    result = send(b" Bcc: x\nbody\n")
    assert result.endswith(b"\n\n Bcc: x\nbody\n")


def test_second_message_has_another_id(serve, fake_queue) -> None:
    serve(b"MAIL FROM:<a@b>\r\nRCPT TO:<x@y>\r\nDATA\r\n.\r\n" * 2)
    ids = [re.search(rb"Message-ID: (.*)", mail.message)[1] for mail in fake_queue.queued]
    assert len(set(ids)) == 2


def test_header_without_end_is_refused(send, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "HEADER_LIMIT", 100)
    refusal = b"552 sorry, that message header is too big (#5.3.4)\r\n"
    assert send(b"X: y\n" * 1000) == refusal


def test_databytes(send) -> None:
    refusal = b"552 sorry, that message size exceeds my databytes limit (#5.3.4)\r\n"
    assert send(WHOLE + b"\n" + b"x" * 200 + b"\n", DATABYTES="200") == refusal


@pytest.mark.parametrize(
    "ending", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\r\n.\r\n", b"\r\n.\r"]
)
def test_look_alike_of_the_end_is_refused(serve, fake_queue, ending: bytes) -> None:
    status, output = serve(
        b"MAIL FROM:<a@b>\r\nRCPT TO:<x@y>\r\nDATA\r\nX: y\r\n\r\nx" + ending + b"RSET\r\n.\r\n"
    )
    assert (status, output.splitlines()[-1]) == (
        1,
        b"451 See http://pobox.com/~djb/docs/smtplf.html.",
    )
    assert fake_queue.queued == []


def test_end_of_file_in_the_body_queues_nothing(serve, fake_queue) -> None:
    serve(b"MAIL FROM:<a@b>\r\nRCPT TO:<x@y>\r\nDATA\r\nX: y\r\n\r\nbody\r\n")
    assert [mail.ended for mail in fake_queue.mails] == ["aborted"]


def test_trouble_in_the_queue_is_told(serve, fake_queue) -> None:
    fake_queue.result = Result(31, 7)
    _, output = serve(b"MAIL FROM:<a@b>\r\nRCPT TO:<x@y>\r\nDATA\r\n.\r\n")
    assert output.endswith(b"554 mail server permanently rejected message (#5.3.0)\r\n")


def names(path: Path, **entries: tuple[str, str]) -> None:
    records = [
        (f"{key}@example.org".encode(), f"{name}\0{address}".encode())
        for key, (name, address) in entries.items()
    ]
    cdb.write(str(path), records)


def test_name_database_on_the_command_line(send, home: Path, fake_queue) -> None:
    names(home / "user/names.cdb", joe=('Joe "S" Shmoe', "J.Shmoe@sun.af.mil"))
    result = send(b"From: other@x.y\n" + WHOLE, sender=b"joe", argv=("names.cdb",))
    assert fake_queue.queued[0].sender == b"J.Shmoe@sun.af.mil"
    author = b'From: "Joe \\"S\\" Shmoe" <J.Shmoe@sun.af.mil>\n'
    assert result == author + WHOLE.replace(b"From: a@b.c\n", b"") + b"\n"
    assert send(WHOLE, sender=b"jim", argv=("names.cdb",)) == WHOLE + b"\n"


def test_users_own_rules_come_first(send, home: Path, fake_queue) -> None:
    names(home / "user/names.cdb", joe=("Given", "given@example.org"))
    names(home / "user/.ofmipd/rules.cdb", joe=("", "own@example.org"))
    result = send(WHOLE, sender=b"joe", argv=("names.cdb",))
    assert fake_queue.queued[0].sender == b"own@example.org"
    assert result.startswith(b"From: own@example.org\n")


def test_missing_name_database_is_no_service(serve) -> None:
    refusal = b"451 unable to read configuration (#4.3.0)\r\n"
    assert serve(b"", argv=("nonexistent.cdb",)) == (1, refusal)


def test_no_name_is_no_service(serve, home: Path) -> None:
    (home / "qmail/control/me").unlink()
    assert serve(b"") == (1, b"451 unable to read configuration (#4.3.0)\r\n")


def test_broken_rules_are_a_temporary_error(serve, home: Path) -> None:
    (home / "user/.ofmipd/rules.cdb").write_bytes(b"broken")
    _, output = serve(b"MAIL FROM:<joe>\r\nNOOP\r\n")
    assert replies(output) == b"451 unable to read cdb (#4.3.0)\r\n250 ok\r\n"


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_rules_that_others_may_have_written_are_not_believed(serve, home: Path, mode: int) -> None:
    names(home / "user/.ofmipd/rules.cdb", joe=("", "own@example.org"))
    (home / "user/.ofmipd/rules.cdb").chmod(mode)
    _, output = serve(b"MAIL FROM:<joe>\r\n")
    assert replies(output) == b"451 unable to read cdb (#4.3.0)\r\n"


OWNED = {"AUTHUP_USER": "Alice@example.org", "OFMIP_SENDERS": "users/senders.cdb"}


@pytest.fixture
def senders(home: Path) -> None:
    cdb.write(
        str(home / "qmail/users/senders.cdb"),
        [
            (b"info@example.org", b"bob@example.org\0alice@example.org"),
            (b"bob@example.org", b"bob@example.org"),
        ],
    )


@pytest.mark.parametrize(
    ("sender", "owned"),
    [
        (b"alice@example.org", True),
        (b"ALICE@Example.ORG", True),
        (b"alice", True),
        (b"alice-lists@example.org", True),
        (b"info@example.org", True),
        (b"INFO@example.org", True),
        (b"", True),
        (b"bob@example.org", False),
        (b"alice@elsewhere.example", False),
        (b"alicex@example.org", False),
        (b"alice-x@elsewhere.example", False),
        (b"-alice@example.org", False),
        (b"alice@example.org@elsewhere.example", False),
    ],
)
def test_sender_must_belong_to_the_login(serve, senders, sender: bytes, owned: bool) -> None:
    _, output = serve(b"MAIL FROM:<%s>\r\n" % sender, **OWNED)
    assert replies(output) == (b"250 ok\r\n" if owned else NOT_YOURS)


@pytest.mark.parametrize(
    ("author", "owned"),
    [
        (b"From: Alice <alice@example.org>\n", True),
        (b"From: alice-x@example.org\n", True),
        (b"From: info@example.org, alice\n", True),
        (b"", True),
        (b"From: bob@example.org\n", False),
        (b"From: alice@example.org, bob@example.org\n", False),
        (b"From: alice@example.org\nFROM: bob@example.org\n", False),
        (b"From : bob@example.org\n", False),
        (b"From: alice@example.org bob@example.org\n", False),
        (b"From: alice@example.org <bob@example.org>\n", False),
        (b"From: <alice@example.org> <bob@example.org>\n", False),
        (b'From: "alice@example.org\n <bob@example.org>\n', False),
        (b"From: x: alice@example.org, bob@example.org;\n", False),
        (b"From:\n", False),
        (b"From: <>\n", False),
        (b"From: nobody: ;\n", False),
        (b"From: alice@example.org\0\n", False),
        # What mail programs read in different ways.
        (b"From: alice@example.org <alice@example.org>\n", True),
        (b"From: alice-x @ example . org , Al Ice <alice@example.org> (x)\n", True),
        (b"From: <@bob@example.org:alice@example.org>\n", False),
        (b"From: <@bob.example:alice@example.org>\n", False),
        (b"From: bob@example.org <alice@example.org>\n", False),
        (b"From: bob@example.org: alice@example.org;\n", False),
        (b"From: alice@bob@example.org\n", False),
        (b'From: "bob@example.org\0" <alice@example.org>\n', False),
        (b"From: (\0) alice@example.org\n", False),
        (b'From: "Alice (bob@example.org)" <alice@example.org>\n', True),
        (b"From: Alice:\n alice@example.org (at home),\n\talice-x@example.org;\n", True),
        (b"From: =?utf-8?q?bob=40example.org?=\n", False),
        (b"From: bob@example.org(, <alice@example.org>)\n", False),
        (b"From: alice@example.org\n <bob@example.org>\n", False),
        # The other fields that say who speaks.
        (b"From: alice@example.org\nSender: bob@example.org\n", False),
        (b"From: alice@example.org\nResent-From: Bob <bob@example.org>\n", False),
        (b"From: alice@example.org\nResent-Sender: bob@example.org\n", False),
        (b"From: alice@example.org\nSender:\n", False),
        (b"Sender: bob@example.org\n", False),
        (b"From: info@example.org\nSender: alice@example.org\nReply-To: bob@b.c\n", True),
    ],
)
@pytest.mark.parametrize("sender", [b"alice@example.org", b""])
def test_author_must_belong_to_the_login(
    send, senders, fake_queue, sender: bytes, author: bytes, owned: bool
) -> None:
    result = send(author + b"To: x@y.z\n\n", sender=sender, **OWNED)
    assert (result == NOT_YOURS) is not owned
    assert bool(fake_queue.queued) == owned


@pytest.mark.parametrize("sender", [b"alice@example.org", b""])
def test_no_message_is_without_an_author(send, senders, sender: bytes) -> None:
    assert b"\nFrom: alice@example.org\n" in send(b"To: x@y.z\n\n", sender=sender, **OWNED)


def test_nobody_owns_nothing(serve, senders) -> None:
    _, output = serve(b"MAIL FROM:<a@b>\r\n", OFMIP_SENDERS="users/senders.cdb")
    assert replies(output) == NOT_YOURS


def test_no_map_means_only_ones_own(serve) -> None:
    _, output = serve(b"MAIL FROM:<alice>\r\nMAIL FROM:<info>\r\n", **OWNED)
    assert replies(output) == b"250 ok\r\n" + NOT_YOURS


def test_own_rules_cannot_give_an_address_away(serve, senders, home: Path) -> None:
    names(home / "user/.ofmipd/rules.cdb", alice=("Bob", "bob@example.org"))
    _, output = serve(b"MAIL FROM:<alice>\r\n", **OWNED)
    assert replies(output) == NOT_YOURS


@pytest.mark.parametrize(
    "address",
    [
        "alice-x\nFrom: bob@example.org\n@example.org",
        "alice-x\rFrom: bob@example.org\r@example.org",
        "alice-\0@example.org",
        "alice-" + "x" * 900 + "@example.org",
    ],
)
def test_own_rules_bring_in_no_header_field(serve, senders, home: Path, address: str) -> None:
    names(home / "user/.ofmipd/rules.cdb", alice=("Alice", address))
    _, output = serve(b"MAIL FROM:<alice>\r\n", **OWNED)
    assert replies(output) == b"451 unable to read cdb (#4.3.0)\r\n"


def test_own_rules_hide_no_sender_and_no_author(send, senders, home: Path) -> None:
    names(home / "user/.ofmipd/rules.cdb", alice=("Alice", ""))
    assert b'From: "Alice" <alice@example.org>\n' in send(WHOLE, sender=b"alice", **OWNED)
    spoken = WHOLE + b"Sender: bob@example.org\n"
    assert send(spoken, sender=b"alice", **OWNED) == NOT_YOURS


def test_own_rules_may_name_another_own_address(send, senders, home: Path) -> None:
    names(home / "user/.ofmipd/rules.cdb", x=("Info", "info@example.org"))
    assert b'From: "Info" <info@example.org>\n' in send(WHOLE, sender=b"x", **OWNED)


def test_given_rules_are_for_those_who_own_the_key(serve, senders, home: Path) -> None:
    names(home / "user/names.cdb", alice=("A", "a@b.c"), bob=("B", "b@b.c"))
    _, output = serve(b"MAIL FROM:<alice>\r\nMAIL FROM:<bob>\r\n", argv=("names.cdb",), **OWNED)
    assert replies(output) == b"250 ok\r\n" + NOT_YOURS


def test_unreadable_map_is_a_temporary_error(serve, home: Path) -> None:
    (home / "qmail/users/senders.cdb").write_bytes(b"broken")
    _, output = serve(b"MAIL FROM:<info>\r\n", **OWNED)
    assert replies(output) == b"451 unable to read cdb (#4.3.0)\r\n"


LINES = st.lists(
    st.sampled_from([b"A: b\n", b" c\n", b"\n", b"nofield\n", b"D: e", b"\t\n"]), max_size=12
)


@given(LINES, st.lists(st.integers(1, 6), max_size=30))
def test_any_split_gives_the_same_header(lines: list[bytes], sizes: list[int]) -> None:
    text = b"".join(lines) + b"\n"
    whole, split = HeaderReader(), HeaderReader()
    body = whole.feed(text) + whole.finish()
    parts = b""
    for size in itertools.chain(sizes, itertools.repeat(50)):
        if not text:
            break
        parts += split.feed(text[:size])
        text = text[size:]
    assert (parts + split.finish(), split.fields) == (body, whole.fields)


@given(LINES)
def test_nothing_is_lost(lines: list[bytes]) -> None:
    text = b"".join(lines)
    reader = HeaderReader()
    body = reader.feed(text) + reader.finish()
    again = join(reader.fields) + body
    assert again.replace(b"\n", b"") == text.replace(b"\n", b"")


DIALOGUE = (
    b"MAIL FROM:<a>\r\nRCPT TO:<b>\r\nDATA\r\nDate: d\r\nMessage-ID: i\r\nFrom: a\r\nTo: c\r\n\r\n"
    b"body\r\n..\r\n.\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\nDATA\r\nDate: d\r\nMessage-ID: i\r\n"
    b"From: a\r\nTo: c\r\n.\r\nQUIT\r\n"
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(cuts=st.sets(st.integers(1, len(DIALOGUE) - 1)))
def test_any_split_gives_the_same_output(serve, fake_queue, cuts: set[int]) -> None:
    fake_queue.mails.clear()
    offsets = [0, *sorted(cuts), len(DIALOGUE)]
    _, output = serve(*(DIALOGUE[a:b] for a, b in itertools.pairwise(offsets)))
    one = b"250 ok\r\n250 ok\r\n354 go ahead\r\n250 ok N qp N\r\n"
    assert replies(output) == one * 2 + b"221 ofmipd.local\r\n"
    header = b"Date: d\nMessage-ID: i\nFrom: a@example.org\nTo: c@example.org\n\n"
    texts = [mail.message.split(b"-0000\n", 1)[1] for mail in fake_queue.queued]
    assert texts == [header + b"body\n.\n", header]


HEAVY = "ssl hashlib random logging asyncio email subprocess tempfile threading inspect argparse"


def test_servers_load_nothing_heavy() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(pyqmail.__file__).parents[1])!r})\n"
        "import pyqmail.ofmipd.program, pyqmail.smtpd.program, pyqmail.pop3d.program\n"
        f"print([name for name in {HEAVY.split()} if name in sys.modules])"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"[]\n"
