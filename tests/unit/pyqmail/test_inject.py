"""qmail-inject and sendmail: what becomes of header and envelope."""

import os
import re
from pathlib import Path

import pytest

from pyqmail import inject, sendmail
from pyqmail.queue.errors import Result
from ucspi import chain

WHOLE = b"Date: d\nMessage-ID: <m@x>\nFrom: a@b.c\nTo: x@y.z\n"
STAMPS = (
    rb"Date: \d+ \w{3} \d{4} \d\d:\d\d:\d\d -0000\n"
    rb"Message-ID: <\d{14}\.\d+\.qmail@mx\.example\.org>\n"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    control = tmp_path / "control"
    control.mkdir()
    (control / "me").write_text("mx.example.org\n")
    (control / "defaulthost").write_text("host\n")
    (control / "defaultdomain").write_text("example.org\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(home, fake_queue):
    """Return a function: message, words, environment -> exit status."""

    def start(message: bytes, *words: str, program=inject.main, **more: str) -> int:
        fake_queue.mails.clear()
        path = home / "message"
        path.write_bytes(message)
        saved = os.dup(0)
        fd = os.open(path, os.O_RDONLY)
        os.dup2(fd, 0)
        os.close(fd)
        try:
            env = {"QMAIL_HOME": str(home), "USER": "joe", **more}
            return program(["qmail-inject", *words], env)
        finally:
            os.dup2(saved, 0)
            os.close(saved)

    return start


@pytest.fixture
def queued(run, fake_queue):
    """Return a function like run that returns the one mail that was queued."""

    def start(*args, **more):
        assert run(*args, **more) == 0
        [mail] = fake_queue.queued
        return mail

    return start


def test_whole_message_is_queued_as_it_is(queued) -> None:
    message = WHOLE + b"Subject: =?x?=\n\tfolded \xff\n\nbody\n\nno end\n"
    mail = queued(message)
    assert mail.message == message
    assert (mail.sender, mail.recipients) == (b"joe@host.example.org", [b"x@y.z"])


def test_missing_fields_come_first(queued) -> None:
    mail = queued(b"Subject: x\n\nbody", "you@y.z")
    assert re.fullmatch(
        STAMPS + rb"From: joe@host\.example\.org\nCc: recipient list not shown: ;\n"
        rb"Subject: x\n\nbody\n",
        mail.message,
    )


def test_hidden_fields_are_dropped(queued) -> None:
    mail = queued(WHOLE + b"Bcc: s@x.y\nReturn-Path: <r@x.y>\nContent-Length: 4\n\n")
    assert mail.message == WHOLE + b"\n"
    assert mail.recipients == [b"x@y.z", b"s@x.y"]
    assert mail.sender == b"r@x.y"


def test_addresses_are_made_whole(queued) -> None:
    mail = queued(b"Date: d\nMessage-ID: m\nFrom: joe\nTo: a b@cs, c+d@here+\nX: joe\n\n")
    assert mail.message == (
        b"Date: d\nMessage-ID: m\nFrom: joe@host.example.org\n"
        b"To: a@host.example.org, b@cs.example.org, c+d@here.mx.example.org\nX: joe\n\n"
    )
    assert mail.recipients == [
        b"a@host.example.org",
        b"b@cs.example.org",
        b"c+d@here.mx.example.org",
    ]


@pytest.mark.parametrize(
    ("words", "recipients"),
    [
        ((), [b"x@y.z"]),
        (("arg@a.b",), [b"arg@a.b"]),
        (("-A", "arg@a.b"), [b"arg@a.b"]),
        (("-a", "arg@a.b", "two@a.b"), [b"arg@a.b", b"two@a.b"]),
        (("-h", "arg@a.b"), [b"x@y.z"]),
        (("-H", "arg@a.b"), [b"arg@a.b", b"x@y.z"]),
        (("-aN", "--", "-arg@a.b"), [b"-arg@a.b"]),
        (("one", "<two@a.b>"), [b"one@host.example.org", b"two@a.b"]),
        (("one, two@a.b",), [b"one, two@a.b"]),
        (("(a b@cs",), [b"(a b@cs.example.org"]),
    ],
)
def test_whom_it_goes_to(queued, words: tuple[str, ...], recipients: list[bytes]) -> None:
    assert queued(WHOLE + b"\n", *words).recipients == recipients


@pytest.mark.parametrize(
    ("words", "more", "sender"),
    [
        ((), {}, b"joe@host.example.org"),
        ((), {"QMAILUSER": "q", "QMAILHOST": "h.q"}, b"q@h.q"),
        ((), {"QMAILSUSER": "b", "QMAILSHOST": "s"}, b"b@s.example.org"),
        ((), {"USER": "a b"}, b"a b@host.example.org"),
        (("-f", "f@g.h"), {"QMAILSUSER": "b"}, b"f@g.h"),
        (("-ff",), {}, b"f@host.example.org"),
        (("-f", ""), {}, b""),
        (("-f<>",), {}, b""),
        (("-f", "victim@x.y,a b@c.d"), {}, b"victim@x.y,a b@c.d"),
        ((), {"QMAILINJECT": "r"}, b"joe-@host.example.org-@[]"),
    ],
)
def test_who_gets_the_bounces(queued, words, more: dict[str, str], sender: bytes) -> None:
    assert queued(WHOLE + b"\n", *words, **more).sender == sender


def test_per_message_verp(queued) -> None:
    sender = queued(WHOLE, QMAILINJECT="m").sender
    assert re.fullmatch(rb"joe-\d+\.\d+@host\.example\.org", sender)


def test_return_path_can_be_ignored_but_not_kept(queued) -> None:
    mail = queued(WHOLE + b"Return-Path: <r@x.y>\n\n", QMAILINJECT="s")
    assert mail.sender == b"joe@host.example.org"
    assert b"Return-Path" not in mail.message


def test_return_path_names_each_recipient_too(queued) -> None:
    mail = queued(WHOLE + b"Return-Path: <r-@x.y>\n\n", QMAILINJECT="r")
    assert mail.sender == b"r-@x.y-@[]"


def test_option_wins_over_return_path(queued) -> None:
    assert queued(WHOLE + b"Return-Path: <r@x.y>\n\n", "-fs@x.y").sender == b"s@x.y"


@pytest.mark.parametrize(
    ("more", "author"),
    [
        ({"QMAILNAME": "Joe Shmoe"}, b'From: "Joe Shmoe" <joe@host.example.org>\n'),
        ({"NAME": 'J "x"', "QMAILINJECT": "c"}, b'From: joe@host.example.org (J \\"x\\")\n'),
        ({"USER": "a b"}, b'From: "a b"@host.example.org\n'),
        ({"NAME": "a\nBcc: x"}, b'From: "a Bcc: x" <joe@host.example.org>\n'),
    ],
)
def test_author(queued, more: dict[str, str], author: bytes) -> None:
    assert author in queued(b"To: x@y.z\n\n", **more).message


def test_letters_drop_fields(queued) -> None:
    message = queued(WHOLE + b"\n", QMAILINJECT="fi").message
    assert b"a@b.c" not in message
    assert b"<m@x>" not in message


def test_letters_leave_who_sent_it_again_alone(queued) -> None:
    again = b"Resent-From: me@x.y\nResent-Message-ID: <again@x>\nResent-To: r@x.y\n"
    message = queued(again + WHOLE + b"\n", QMAILINJECT="fi").message
    assert again in message
    assert b"\nFrom:" not in message
    assert b"\nMessage-ID:" not in message


def test_from_line_of_a_mailbox_file_does_not_end_the_header(queued) -> None:
    line = b"From joe@x.y  Thu Jan  1 00:00:00 1970\n"
    mail = queued(line + WHOLE + b"\nFrom here on text\n")
    assert mail.message == b"MBOX-Line: " + line + WHOLE + b"\nFrom here on text\n"
    assert mail.recipients == [b"x@y.z"]


def test_resent_message(queued) -> None:
    mail = queued(b"Resent-To: r\nResent-Bcc: s@x.y\n" + WHOLE + b"Bcc: hidden@x.y\n\nbody\n")
    assert re.fullmatch(
        STAMPS.replace(b"Date:", b"Resent-Date:").replace(b"Message", b"Resent-Message")
        + rb"Resent-From: joe@host\.example\.org\nResent-To: r@host\.example\.org\n"
        + re.escape(WHOLE)
        + b"\nbody\n",
        mail.message,
    )
    assert mail.recipients == [b"r@host.example.org", b"s@x.y"]


FOLLOWUP = b'Mail-Followup-To: List@lists.example,\n  joe@host.example.org,\n  "a b"@x.y\n'


@pytest.fixture
def lists(home: Path) -> dict[str, str]:
    (home / "lists").write_text("# mine\nlist@LISTS.example \nother@lists.example\n")
    return {"QMAILMFTFILE": str(home / "lists")}


def test_message_to_a_list_says_where_answers_go(queued, lists) -> None:
    readers = b'Cc: List@lists.example, joe\nCc: "a b"@x.y, joe@host\n'
    message = queued(WHOLE.replace(b"To: x@y.z\n", readers) + b"\n", **lists).message
    assert message.endswith(FOLLOWUP + b"\n")


@pytest.mark.parametrize(
    "header",
    [
        WHOLE,
        WHOLE + b"Bcc: list@lists.example\n",
        WHOLE + b"Cc: list@lists.example\nMail-Followup-To: joe@y.z\n",
        WHOLE + b"Cc: list@lists.example\nResent-To: b@y.z\n",
    ],
)
def test_no_other_message_says_so(queued, lists, header: bytes) -> None:
    message = queued(header + b"\n", **lists).message
    assert message.count(b"Mail-Followup-To") == header.count(b"Mail-Followup-To")


def test_list_of_lists_may_be_missing_but_must_be_readable(queued, run, home: Path) -> None:
    header = WHOLE + b"Cc: list@lists.example\n\n"
    assert queued(header, QMAILMFTFILE=str(home / "none")).message == header
    assert run(header, QMAILMFTFILE=str(home)) == 111


def test_list_of_lists_is_found_from_where_the_caller_is(
    queued, lists, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = home / "caller"
    caller.mkdir()
    (home / "lists").rename(caller / "lists")
    monkeypatch.chdir(caller)
    message = queued(WHOLE + b"Cc: list@lists.example\n\n", QMAILMFTFILE="lists").message
    assert b"Mail-Followup-To: " in message


def test_where_answers_go_gets_whole_names_and_need_not_parse(queued) -> None:
    fields = b"Mail-Reply-To: joe\nMail-Followup-To: a@cs\n"
    whole = b"Mail-Reply-To: joe@host.example.org\nMail-Followup-To: a@cs.example.org\n"
    assert queued(WHOLE + fields + b"\n").message == WHOLE + whole + b"\n"
    odd = b"Mail-Reply-To: (open\n"
    assert queued(WHOLE + odd + b"\n").message == WHOLE + odd + b"\n"


def test_print_instead_of_queueing(run, fake_queue, capfdbinary) -> None:
    assert run(WHOLE + b"\nbody", "-n", USER="a b") == 0
    returns = b'Return-Path: <"a b"@host.example.org>\n'
    assert capfdbinary.readouterr().out == returns + WHOLE + b"\nbody\n"
    assert fake_queue.mails == []


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (WHOLE, ("-x",)),
        (WHOLE, ("-f",)),
        (WHOLE, ("a\nb@x.y",)),
        (WHOLE, ("-f", "a\rb@x.y")),
        (b'To: "open\n\n', ()),
        (b'From: "open\nTo: x@y\n\n', ()),
        (b"Subject: nobody\n\n", ()),
        (WHOLE, ("-a",)),
    ],
)
def test_permanent_errors(run, fake_queue, message: bytes, words: tuple[str, ...]) -> None:
    assert run(message, *words) == 100
    assert fake_queue.mails == []


@pytest.mark.parametrize(("status", "result"), [(31, 100), (53, 111), (11, 100)])
def test_refusal_of_the_queue(run, fake_queue, capfd, status: int, result: int) -> None:
    fake_queue.result = Result(status, 1)
    assert run(WHOLE) == result
    assert capfd.readouterr().err.startswith("qmail-inject: fatal: ")


def test_no_name_is_a_temporary_error(run, home: Path) -> None:
    (home / "control/me").unlink()
    assert run(WHOLE) == 111


def test_header_with_network_line_ends_is_understood(queued) -> None:
    assert queued(b"To: x@y.z\r\nSubject: x\r\n\r\nbody\r\n").recipients == [b"x@y.z"]


def test_large_body(queued) -> None:
    body = bytes(range(256)) * 4096 + b"\n"
    assert queued(WHOLE + b"\n" + body).message == WHOLE + b"\n" + body


def test_sendmail_reads_recipients_from_the_header(queued) -> None:
    mail = queued(WHOLE + b"Bcc: s@x.y\n\n", "-t", "-oi", "-i", program=sendmail.main)
    assert mail.recipients == [b"x@y.z", b"s@x.y"]


def test_sendmail_takes_recipients_as_words(queued) -> None:
    words = ("-odb", "-em", "-B8BITMIME", "-bm", "r@x.y", "-odd@x.y")
    assert queued(WHOLE, *words, program=sendmail.main).recipients == [b"r@x.y", b"-odd@x.y"]


def test_sendmail_options_of_which_nothing_is_known_swallow_their_word(queued) -> None:
    mail = queued(WHOLE, "-Ef", "-Jxyz", "r@x.y", program=sendmail.main)
    assert mail.sender == b"joe@host.example.org"
    assert mail.recipients == [b"r@x.y"]


def test_sendmail_without_recipients(run) -> None:
    assert run(WHOLE, program=sendmail.main) == 100


def test_sendmail_sender_becomes_author_with_full_name(queued) -> None:
    mail = queued(
        b"\n", "-F", "Full Name", "-f", "me@x.y", "to@x.y", program=sendmail.main, NAME="Other"
    )
    assert mail.sender == b"me@x.y"
    assert b'From: "Full Name" <me@x.y>\n' in mail.message


def test_sendmail_sender_may_stand_in_angle_brackets(queued) -> None:
    mail = queued(b"\n", "-f<me@x.y>", "to@x.y", program=sendmail.main)
    assert mail.sender == b"me@x.y"
    assert b"From: me@x.y\n" in mail.message


@pytest.mark.parametrize("words", [("-bz",), ("-Q",), ("-f",)])
def test_sendmail_misuse(run, words: tuple[str, ...]) -> None:
    assert run(b"", *words, program=sendmail.main) == 100


def test_sendmail_by_its_other_names(monkeypatch, capfd) -> None:
    monkeypatch.setattr(chain, "run", lambda argv, env: 7 if argv == ["qmail-qread"] else 1)
    assert chain.main_of("mailq")(["/usr/bin/mailq"], {}) == 7
    assert chain.main_of("newaliases")(["newaliases"], {}) == 100
    assert "postern alias" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "argv"), [(("-bp",), ["qmail-qread"]), (("-bs",), ["qmail-smtpd"])]
)
def test_sendmail_becomes_another_program(run, monkeypatch, words, argv: list[str]) -> None:
    seen: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(chain, "run", lambda argv, env: seen.append((argv, env)) or 7)
    assert run(b"", *words, program=sendmail.main) == 7
    assert seen[0][0] == argv
    assert ("RELAYCLIENT" in seen[0][1]) == (words == ("-bs",))
