"""qmail-qfilter-addtlsheader: one header, or none, and the message as it was."""

import email
import email.utils
import os
import re
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acceptutils import addtlsheader

NOW = 1700000000.5  # 14 Nov 2023 22:13:20 UTC
DATE = b"14 Nov 2023 22:13:20 -0000"
TLS = {"SSL_PROTOCOL": "TLSv1.3", "SSL_CIPHER": "TLS_AES_256_GCM_SHA384"}


@pytest.mark.parametrize(
    ("env", "who"),
    [
        ({}, b""),
        ({"AUTHUP_USER": "alice@example.org"}, b" acceptutils authup alice@example.org"),
        ({"FIXSMTPIOTLS": "1"}, b" acceptutils fixsmtpio"),
        ({"FIXSMTPIOTLS": "", "AUTHUP_USER": "alice"}, b" acceptutils fixsmtpio"),
    ],
)
def test_header(env: dict[str, str], who: bytes) -> None:
    expected = b"Received: (ucspitls%b TLSv1.3 TLS_AES_256_GCM_SHA384); %b\n" % (who, DATE)
    assert addtlsheader.header(TLS | env, NOW) == expected


@pytest.mark.parametrize("missing", ["SSL_PROTOCOL", "SSL_CIPHER"])
def test_no_header_without_tls(missing: str) -> None:
    env = {"AUTHUP_USER": "alice", "FIXSMTPIOTLS": "1", **TLS}
    del env[missing]
    assert addtlsheader.header(env, NOW) == b""


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("a\r\nX-Injected: yes", b"a??X-Injected:?yes"),
        ("a\nb", b"a?b"),
        ("a) (b", b"a???b"),
        ("a\\", b"a?"),
        ("jürgen", b"j??rgen"),
        ("\udcff\x00\x7f", b"???"),
        ("x" * 5000, b"x" * addtlsheader.VALUE_LIMIT),
    ],
)
def test_value_can_end_neither_word_nor_comment_nor_header(value: str, word: bytes) -> None:
    assert addtlsheader.comment_word(value) == word


@given(st.text(max_size=400), st.text(max_size=400), st.text(max_size=400))
def test_header_is_one_line_whatever_the_values(user: str, protocol: str, cipher: str) -> None:
    env = {"AUTHUP_USER": user, "SSL_PROTOCOL": protocol, "SSL_CIPHER": cipher}
    line = addtlsheader.header(env, NOW)
    assert re.fullmatch(rb"Received: \([!-'*-\[\]-~ ]*\); %b\n" % DATE, line)
    assert len(line) <= 1000


def test_date_is_one_of_rfc_5322() -> None:
    parsed = email.utils.parsedate_to_datetime(addtlsheader.date(NOW).decode())
    assert parsed.timestamp() == int(NOW)
    assert addtlsheader.date(1) == b"1 Jan 1970 00:00:01 -0000"


def run(message: bytes, env: dict[str, str], **redirect: int) -> tuple[int, bytes]:
    """Filter message in a process of its own: its status and output."""
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    feeder = os.fork()
    if feeder == 0:
        try:
            while message:
                message = message[os.write(in_write, message) :]
        finally:
            os._exit(0)
    os.close(in_write)
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.dup2(redirect.get("stdin", in_read), 0)
            os.dup2(redirect.get("stdout", out_write), 1)
            os.close(out_read)
            status = addtlsheader.main(["qmail-qfilter-addtlsheader"], env)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(in_read)
    os.close(out_write)
    with open(out_read, "rb") as file:
        output = file.read()
    os.waitpid(feeder, 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output


MESSAGE = b"Subject: x\n\nbody\0\xff\r\nlast line without end"


def test_message_passes_unchanged() -> None:
    assert run(MESSAGE, {}) == (0, MESSAGE)
    assert run(b"", {}) == (0, b"")


def test_message_gets_the_header_in_front() -> None:
    status, output = run(MESSAGE, TLS)
    assert status == 0
    first, _, rest = output.partition(b"\n")
    assert rest == MESSAGE
    parsed = email.message_from_bytes(output)
    assert parsed["Received"].startswith("(ucspitls TLSv1.3 TLS_AES_256_GCM_SHA384); ")
    assert first.startswith(b"Received: ")


def test_large_message_passes() -> None:
    large = os.urandom(1 << 20)
    assert run(large, {}) == (0, large)


def test_message_that_cannot_be_read() -> None:
    directory = os.open("/", os.O_RDONLY)
    assert run(b"", {}, stdin=directory)[0] == addtlsheader.EXIT_READ
    os.close(directory)


def test_message_that_cannot_be_written() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    assert run(b"x", {}, stdout=full)[0] == addtlsheader.EXIT_WRITE
    os.close(full)
