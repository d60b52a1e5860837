"""qmail-smtpd: dialogues, byte for byte."""

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyqmail.queue.errors import Result
from pyqmail.received import date822
from pyqmail.smtpd import program
from pyqmail.smtpd.policy import suffixes
from ucspi import cdb

PEER = {
    "TCPREMOTEIP": "192.0.2.9",
    "TCPREMOTEHOST": "client.example",
    "TCPLOCALHOST": "mx.example.org",
    "QMAIL_RECIPIENT_SOCKET": "/nonexistent",
}
GREETING = b"220 mx.example.org ESMTP\r\n"
ENVELOPE = b"MAIL FROM:<a@b.c>\r\nRCPT TO:<joe@example.org>\r\n"
STRAY = b"451 See http://pobox.com/~djb/docs/smtplf.html.\r\n"
TOO_BIG = b"552 sorry, that message size exceeds my databytes limit (#5.3.4)\r\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    control = tmp_path / "control"
    control.mkdir()
    (control / "me").write_text("mx.example.org\n")
    (control / "rcpthosts").write_text("example.org\n.wild.example\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def serve(home, script, fake_queue, monkeypatch):
    """Return a function: pieces, further environment -> exit status, output."""

    def run(*pieces: bytes, **more: str) -> tuple[int, bytes]:
        env = {"QMAIL_HOME": str(home), **PEER, **more}
        channel = script(pieces)
        monkeypatch.setattr(program, "Channel", lambda *_: channel)
        status = program.main(["qmail-smtpd"], env)
        return status, channel.output

    return run


def replies(output: bytes) -> bytes:
    """Return output without the greeting, with the numbers in ``250 ok TIME qp PID`` as N."""
    assert output.startswith(GREETING)
    return re.sub(rb"250 ok \d+ qp \d+", b"250 ok N qp N", output[len(GREETING) :])


@pytest.mark.parametrize(
    ("said", "answered"),
    [
        (b"HELO there\r\n", b"250 mx.example.org\r\n"),
        (
            b"EHLO there\r\n",
            b"250-mx.example.org\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n",
        ),
        (b"NOOP\r\n", b"250 ok\r\n"),
        (b"RSET\r\n", b"250 flushed\r\n"),
        (b"VRFY joe\r\n", b"252 send some mail, i'll try my best\r\n"),
        (b"HELP\r\n", b"214 netqmail home page: http://qmail.org/netqmail\r\n"),
        (b"EXPN joe\r\n", b"502 unimplemented (#5.5.1)\r\n"),
        (b"\r\n", b"502 unimplemented (#5.5.1)\r\n"),
        (b"STARTTLS\r\n", b"502 unimplemented (#5.5.1)\r\n"),
        (b"AUTH PLAIN\r\n", b"502 unimplemented (#5.5.1)\r\n"),
        (b"RCPT TO:<joe@example.org>\r\n", b"503 MAIL first (#5.5.1)\r\n"),
        (b"DATA\r\n", b"503 MAIL first (#5.5.1)\r\n"),
        (b"MAIL FROM:<a@b>\r\nDATA\r\n", b"250 ok\r\n503 RCPT first (#5.5.1)\r\n"),
        (b"mAiL   FROM: <a@b>  \r\n", b"250 ok\r\n"),
        (b"MAIL FROM:a@b\r\n", b"250 ok\r\n"),
        (b"MAIL FROM:<>\r\n", b"250 ok\r\n"),
        (b"noop\n", b"250 ok\r\n"),
        (b"MAIL FROM:<%s@b>\r\n" % (b"x" * 899), b"555 syntax error (#5.5.4)\r\n"),
        (b"MAIL FROM:<%s@b>\r\n" % (b"x" * 898), b"250 ok\r\n"),
        (b"MAIL FROM:<a\rb@c>\r\n", b"555 syntax error (#5.5.4)\r\n"),
        (b"MAIL FROM:<a@b> SIZE=100 BODY=8BITMIME\r\n", b"250 ok\r\n"),
        (b"MAIL FROM:<a@b> body=7bit\r\n", b"250 ok\r\n"),
        (b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n", b"555 syntax error (#5.5.4)\r\n"),
        (b"MAIL FROM:<a@b> SMTPUTF8\r\n", b"555 syntax error (#5.5.4)\r\n"),
        (b"MAIL FROM:<a@b> RET=HDRS\r\n", b"555 syntax error (#5.5.4)\r\n"),
        (b"MAIL FROM:<a@b> SIZE=many\r\n", b"555 syntax error (#5.5.4)\r\n"),
        (
            b"MAIL FROM:<a@b>\r\nRCPT TO:<joe@example.org> NOTIFY=NEVER\r\n",
            b"250 ok\r\n555 syntax error (#5.5.4)\r\n",
        ),
        (b"MAIL FROM:<a@b>\r\nRCPT TO:<>\r\n", b"250 ok\r\n555 syntax error (#5.5.4)\r\n"),
    ],
)
def test_reply(serve, said: bytes, answered: bytes) -> None:
    status, output = serve(said + b"QUIT\r\n")
    assert replies(output) == answered + b"221 mx.example.org\r\n"
    assert status == 0


def test_message_is_queued_with_received_line(serve, fake_queue) -> None:
    status, output = serve(
        b"HELO their.name\r\n" + ENVELOPE + b"DATA\r\n",
        b"Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n",
    )
    assert status == 0
    assert replies(output) == (
        b"250 mx.example.org\r\n250 ok\r\n250 ok\r\n354 go ahead\r\n"
        b"250 ok N qp N\r\n221 mx.example.org\r\n"
    )
    [mail] = fake_queue.queued
    assert (mail.sender, mail.recipients) == (b"a@b.c", [b"joe@example.org"])
    assert re.fullmatch(
        rb"Received: from client\.example \(HELO their\.name\) \(192\.0\.2\.9\)\n"
        rb"  by mx\.example\.org with SMTP; \d+ \w{3} \d{4} \d\d:\d\d:\d\d -0000\n"
        rb"Subject: x\n\n\.dot\n",
        mail.message,
    )


def test_received_line_without_helo_and_with_ident(serve, fake_queue) -> None:
    serve(ENVELOPE + b"DATA\r\n.\r\n", TCPREMOTEINFO="jo(e", TCPREMOTEHOST="a\nb")
    assert fake_queue.queued[0].message.startswith(
        b"Received: from a?b (jo?e@192.0.2.9)\n  by mx.example.org with SMTP; "
    )


def test_helo_equal_to_the_known_name_is_not_repeated(serve, fake_queue) -> None:
    serve(b"HELO Client.Example\r\n" + ENVELOPE + b"DATA\r\n.\r\n")
    assert fake_queue.queued[0].message.startswith(b"Received: from client.example (192.0.2.9)\n")


def test_foreign_recipient_is_refused(serve) -> None:
    _, output = serve(b"MAIL FROM:<>\r\nRCPT TO:<x@elsewhere.example>\r\nDATA\r\n")
    assert replies(output) == (
        b"250 ok\r\n553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)\r\n"
        b"503 RCPT first (#5.5.1)\r\n"
    )


@pytest.mark.parametrize(
    ("recipient", "admitted"),
    [
        (b"x@EXAMPLE.org", True),
        (b"x@sub.example.org", False),
        (b"x@a.b.wild.example", True),
        (b"x@wild.example", False),
        (b"postmaster", True),
        (b"x@example.org@elsewhere.example", False),
        (b"@elsewhere.example:x@example.org", True),
        (b"x%elsewhere.example@example.org", True),
        (b"x@listed.more.example", True),
        (b"x@" + b"a." * 122 + b".more.example", False),  # too long for a domain: not looked up
        (b"x@[192.0.2.200]", False),
        (b"x@[127.0.0.1]", True),
        (b"x@[IPv6:::1]", True),
        (b"x@[127.0.0.1]x", False),
        (b"x@", False),
    ],
)
def test_rcpthosts(serve, home: Path, recipient: bytes, admitted: bool) -> None:
    (home / "control" / "localiphost").write_text("example.org\n")
    cdb.write(str(home / "control" / "morercpthosts.cdb"), [(b".more.example", b"")])
    _, output = serve(b"MAIL FROM:<>\r\nRCPT TO:<%s>\r\n" % recipient)
    assert replies(output).splitlines()[1].startswith(b"250" if admitted else b"553")


def test_no_rcpthosts_admits_everything_and_no_cdb_is_looked_at(serve, home: Path) -> None:
    (home / "control" / "rcpthosts").unlink()
    _, output = serve(b"MAIL FROM:<>\r\nRCPT TO:<x@anywhere>\r\n")
    assert replies(output) == b"250 ok\r\n250 ok\r\n"


def test_relayclient_overrides_and_is_appended(serve, fake_queue) -> None:
    serve(b"MAIL FROM:<>\r\nRCPT TO:<x@elsewhere>\r\nDATA\r\n.\r\n", RELAYCLIENT="@relay.example")
    assert fake_queue.queued[0].recipients == [b"x@elsewhere@relay.example"]


def test_local_ip_literal_becomes_the_host_name(serve, fake_queue) -> None:
    (Path("control") / "localiphost").write_text("example.org\n")
    serve(b"MAIL FROM:<>\r\nRCPT TO:<x@[127.0.0.1]>\r\nDATA\r\n.\r\n")
    assert fake_queue.queued[0].recipients == [b"x@example.org"]


@pytest.mark.parametrize("sender", [b"spam@bad.example", b"SPAM@Bad.example", b"x@evil.example"])
def test_badmailfrom_is_refused_at_rcpt(serve, home: Path, sender: bytes) -> None:
    (home / "control" / "badmailfrom").write_text("spam@bad.example\n@Evil.example\n")
    _, output = serve(b"MAIL FROM:<%s>\r\nRCPT TO:<x@example.org>\r\n" % sender)
    assert replies(output) == (
        b"250 ok\r\n553 sorry, your envelope sender is in my badmailfrom list (#5.7.1)\r\n"
    )


def test_databytes_is_announced_and_checked_early(serve) -> None:
    _, output = serve(
        b"EHLO x\r\nMAIL FROM:<> SIZE=101\r\nMAIL FROM:<> SIZE=100\r\n", DATABYTES="100"
    )
    assert replies(output) == (
        b"250-mx.example.org\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 100\r\n"
        + TOO_BIG
        + b"250 ok\r\n"
    )


@pytest.mark.parametrize(("lines", "taken"), [(10, True), (11, False)])
def test_databytes_counts_stored_bytes(serve, fake_queue, lines: int, taken: bool) -> None:
    _, output = serve(
        ENVELOPE + b"DATA\r\n" + b"123456789\r\n" * lines + b".\r\nNOOP\r\n", DATABYTES="100"
    )
    answer = b"250 ok N qp N\r\n" if taken else TOO_BIG
    assert replies(output).endswith(b"354 go ahead\r\n" + answer + b"250 ok\r\n")
    assert bool(fake_queue.queued) == taken


@pytest.mark.parametrize(("hops", "taken"), [(99, True), (100, False)])
def test_hops(serve, fake_queue, hops: int, taken: bool) -> None:
    header = b"Received: x\r\nDELIVERED-To: y\r\n" * 49 + b"received: z\r\n" * (hops - 98)
    body = b"\r\n" + b"Received: in the body\r\n" * 10
    _, output = serve(ENVELOPE + b"DATA\r\n" + header + body + b".\r\n")
    assert replies(output).endswith(
        b"250 ok N qp N\r\n"
        if taken
        else b"554 too many hops, this message is looping (#5.4.6)\r\n"
    )
    assert bool(fake_queue.queued) == taken


@pytest.mark.parametrize(
    "ending",
    [
        b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\n.\r", b"\r.\n", b"\r.\r\n", b"\r.\r", b"\r\n.\r",
        b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\r\r\n.\r\n", b"\n\n.\r\n", b"\r\n.\n\n",
    ],
)  # fmt: skip
def test_look_alike_of_the_end_is_refused_and_ends_the_session(serve, fake_queue, ending) -> None:
    smuggled = b"MAIL FROM:<evil@b>\r\nRCPT TO:<joe@example.org>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n"
    status, output = serve(ENVELOPE + b"DATA\r\nx" + ending + smuggled)
    assert replies(output) == b"250 ok\r\n250 ok\r\n354 go ahead\r\n" + STRAY
    assert status == 1
    assert fake_queue.queued == []


@pytest.mark.parametrize("ending", [b"\r\n\0.\r\n", b"\r\n.\0\r\n"])
def test_nul_around_the_dot_is_data(serve, fake_queue, ending: bytes) -> None:
    _, output = serve(ENVELOPE + b"DATA\r\nx" + ending + b"NOOP\r\n.\r\nQUIT\r\n")
    assert replies(output).endswith(b"354 go ahead\r\n250 ok N qp N\r\n221 mx.example.org\r\n")
    assert len(fake_queue.queued) == 1


def test_end_of_file_in_data_queues_nothing(serve, fake_queue) -> None:
    status, output = serve(ENVELOPE + b"DATA\r\n", b"x\r\n.\r")
    assert status == 1
    assert replies(output).endswith(b"354 go ahead\r\n")
    assert [mail.ended for mail in fake_queue.mails] == ["aborted"]


def test_transaction_ends_with_the_message(serve) -> None:
    _, output = serve(ENVELOPE + b"DATA\r\n.\r\nRCPT TO:<joe@example.org>\r\n")
    assert replies(output).endswith(b"250 ok N qp N\r\n503 MAIL first (#5.5.1)\r\n")


@pytest.mark.parametrize("verb", [b"RSET", b"HELO x", b"EHLO x"])
def test_transaction_is_forgotten(serve, verb: bytes) -> None:
    _, output = serve(ENVELOPE + verb + b"\r\nDATA\r\n")
    assert replies(output).endswith(b"503 MAIL first (#5.5.1)\r\n")


@pytest.mark.parametrize(
    ("result", "answer"),
    [
        (Result(31, 7), b"554 mail server permanently rejected message (#5.3.0)\r\n"),
        (Result(53, 7), b"451 qq write error or disk full (#4.3.0)\r\n"),
        (Result(82, 7, b"DNo viruses, please"), b"554 No viruses, please\r\n"),
    ],
)
def test_trouble_in_the_queue_is_told(serve, fake_queue, result: Result, answer: bytes) -> None:
    fake_queue.result = result
    _, output = serve(ENVELOPE + b"DATA\r\n.\r\nNOOP\r\n")
    assert replies(output).endswith(b"354 go ahead\r\n" + answer + b"250 ok\r\n")


def test_bdat_bytes_are_never_commands(serve, fake_queue) -> None:
    status, output = serve(b"BDAT 60 LAST\r\n" + ENVELOPE + b"DATA\r\n.\r\n")
    assert (status, replies(output)) == (1, b"502 unimplemented (#5.5.1)\r\n")
    assert fake_queue.mails == []


def test_overlong_line_ends_the_session(serve) -> None:
    status, output = serve(b"NOOP\r\n", b"x" * 60000, b"\r\nNOOP\r\n")
    assert (status, replies(output)) == (1, b"250 ok\r\n500 line too long (#5.5.2)\r\n")


def test_nul_in_a_command_ends_the_session(serve) -> None:
    status, output = serve(b"NOOP\0\r\nNOOP\r\n")
    assert (status, replies(output)) == (1, b"500 NUL in line (#5.5.2)\r\n")


def test_too_many_recipients_are_put_off(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyqmail.smtp.session.RECIPIENT_LIMIT", 2)
    _, output = serve(b"MAIL FROM:<>\r\n" + b"RCPT TO:<joe@example.org>\r\n" * 3)
    assert replies(output).endswith(b"250 ok\r\n250 ok\r\n452 too many recipients (#4.5.3)\r\n")


def test_no_name_means_no_service(serve, home: Path) -> None:
    (home / "control" / "me").unlink()
    assert serve(b"") == (1, b"421 unable to read controls (#4.3.0)\r\n")


@pytest.mark.parametrize("file", ["databytes", "timeoutsmtpd"])
def test_control_file_that_does_not_parse_means_no_service(serve, home: Path, file: str) -> None:
    (home / "control" / file).write_text("many\n")
    assert serve(b"") == (1, b"421 unable to read controls (#4.3.0)\r\n")


def test_broken_morercpthosts_is_no_admission(serve, home: Path) -> None:
    (home / "control" / "morercpthosts.cdb").write_bytes(b"short")
    _, output = serve(b"MAIL FROM:<>\r\nRCPT TO:<x@elsewhere>\r\nNOOP\r\n")
    assert output.endswith(b"250 ok\r\n421 unable to read controls (#4.3.0)\r\n")


def test_many_pipelined_commands_are_all_answered(serve) -> None:
    _, output = serve(b"RSET\r\n" * 60000, b"QUIT\r\n")
    assert replies(output) == b"250 flushed\r\n" * 60000 + b"221 mx.example.org\r\n"


def test_mistake_of_ours_is_a_temporary_error_and_one_line(
    serve, fake_queue, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(text: bytes) -> None:
        raise ZeroDivisionError("so\nthere")

    monkeypatch.setattr(program.HopCounter, "feed", lambda self, text: broken(text))
    status, output = serve(ENVELOPE + b"DATA\r\nx\r\n.\r\n")
    assert (status, output.splitlines()[-1]) == (1, b"451 internal error (#4.3.0)")
    [line] = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"qmail-smtpd \d+ ZeroDivisionError: so\\x0athere ip=192.0.2.9", line)
    assert [mail.ended for mail in fake_queue.mails] == ["aborted"]


@pytest.mark.parametrize(
    ("seconds", "date"),
    [
        (0, b"1 Jan 1970 00:00:00 -0000"),
        (951782400.9, b"29 Feb 2000 00:00:00 -0000"),
        (1733011199, b"30 Nov 2024 23:59:59 -0000"),
    ],
)
def test_date(seconds: float, date: bytes) -> None:
    assert date822(seconds) == date


def test_suffixes() -> None:
    assert suffixes(b"a.b.c") == [b"a.b.c", b".b.c", b".c"]


DIALOGUE = (
    b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<joe@example.org>\r\nDATA\r\n"
    b"Received: a\r\n..\r\n\r\nx\r\n.y\r\n\r\n.\r\nNOOP\nMAIL FROM:<c@d>\r\n"
    b"RCPT TO:<joe@example.org>\r\nDATA\r\n.\r\nQUIT\r\n"
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(cuts=st.sets(st.integers(1, len(DIALOGUE) - 1)))
def test_any_split_gives_the_same_output(serve, fake_queue, cuts: set[int]) -> None:
    offsets = [0, *sorted(cuts), len(DIALOGUE)]
    fake_queue.mails.clear()
    pieces = [DIALOGUE[a:b] for a, b in itertools.pairwise(offsets)]
    status, output = serve(*pieces)
    assert status == 0
    assert replies(output) == (
        b"250-mx.example.org\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n"
        b"250 ok\r\n250 ok\r\n354 go ahead\r\n250 ok N qp N\r\n250 ok\r\n"
        b"250 ok\r\n250 ok\r\n354 go ahead\r\n250 ok N qp N\r\n221 mx.example.org\r\n"
    )
    texts = [mail.message.split(b"-0000\n", 1)[1] for mail in fake_queue.queued]
    assert texts == [b"Received: a\n.\n\nx\ny\n\n", b""]


WORDS = st.sampled_from(
    [b"MAIL", b"RCPT", b"DATA", b"EHLO", b"RSET", b"BDAT", b" ", b":", b"<", b">", b"a@b", b'"']
    + [b"FROM:<>", b"TO:<joe@example.org>", b"SIZE=", b"\r\n", b"\n", b"\r", b".", b"\\", b"\0"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(words=st.lists(WORDS | st.binary(max_size=6), max_size=40))
def test_any_input_gets_well_formed_replies(serve, words: list[bytes]) -> None:
    _, output = serve(b"".join(words) + b"\r\n")
    assert re.fullmatch(rb"(?:[2-5]\d\d[ -][ -~]*\r\n)+", output)
