"""qmail-remote, the whole program, against a server on this host that records its bytes."""

import base64
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyqmail.remote import hosts, program, resolve, routes, sender
from pyqmail.remote.addresses import Exchanger
from pyqmail.remote.resolve import Addresses, Exchangers

Sink = Any  # it is in conftest.py
Remote = Callable[..., bytes]
MESSAGE = b"Subject: x\n\n.dot\nbody\n"


def test_a_message_byte_for_byte(remote: Remote, sink: Sink) -> None:
    assert remote() == b"r\0K127.0.0.1 accepted message.\nRemote host said: 250 queued\n\0"
    sink.close()
    assert sink.records == [
        b"EHLO client.example.org\r\nMAIL FROM:<sam@example.org>\r\n"
        b"RCPT TO:<joe@example.net>\r\nDATA\r\n"
        b"Subject: x\r\n\r\n..dot\r\nbody\r\n.\r\nQUIT\r\n"
    ]


def test_helohost_and_the_empty_sender(remote: Remote, sink: Sink, home: Path) -> None:
    (home / "control/helohost").write_text("helo.example.org\n")
    remote(sender="")
    assert sink.records[0].startswith(b"EHLO helo.example.org\r\nMAIL FROM:<>\r\n")


def test_old_servers_get_helo(remote: Remote, sink: Sink) -> None:
    sink.replies["EHLO"] = "502 unimplemented"
    assert remote().startswith(b"r\0K")
    assert b"EHLO client.example.org\r\nHELO client.example.org\r\nMAIL" in sink.records[0]


def test_addresses_are_quoted_where_needed(remote: Remote, sink: Sink) -> None:
    remote('a "b@example.net', sender=".dot@example.org")
    assert b'MAIL FROM:<".dot"@example.org>\r\n' in sink.records[0]
    assert b'RCPT TO:<"a \\"b"@example.net>\r\n' in sink.records[0]


@pytest.mark.parametrize("address", ["a\r\nDATA@example.net", "a\nb@example.net", "a\x01@b"])
def test_no_address_ends_its_command(remote: Remote, sink: Sink, address: str) -> None:
    text = b"DSorry, that address has characters that no mail server takes. (#5.1.3)\n\0"
    assert remote(address) == text
    assert remote(sender=address) == text
    assert sink.records == []


def test_extensions_are_used_when_offered(remote: Remote, sink: Sink) -> None:
    sink.extensions = ["SIZE 100000", "8BITMIME"]
    remote(message=b"Subject: x\n\n\xc3\xa4\n")
    assert b"MAIL FROM:<sam@example.org> SIZE=20 BODY=8BITMIME\r\n" in sink.records[0]
    remote(message=b"Subject: x\n\na\n")
    assert b"MAIL FROM:<sam@example.org> SIZE=19\r\n" in sink.records[1]


def test_eight_bit_is_sent_as_it_is_to_a_server_without_8bitmime(
    remote: Remote, sink: Sink
) -> None:
    remote(message=b"Subject: x\n\n\xc3\xa4\n")
    assert sink.messages == [b"Subject: x\r\n\r\n\xc3\xa4\r\n.\r\n"]
    assert b"BODY" not in sink.records[0]


def test_a_message_that_is_too_big_is_not_sent(remote: Remote, sink: Sink) -> None:
    sink.extensions = ["SIZE 1000"]
    assert remote(message=b"x\n" * 1000) == (
        b"DConnected to 127.0.0.1 but it takes no message of more than 1000 bytes (#5.3.4).\n\0"
    )
    sink.close()
    assert sink.records == [b"EHLO client.example.org\r\nQUIT\r\n"]


def test_commands_are_pipelined_when_offered(remote: Remote, sink: Sink) -> None:
    sink.extensions = ["PIPELINING"]
    assert remote("a@x", "b@y").startswith(b"r\0r\0K")
    assert (
        b"MAIL FROM:<sam@example.org>\r\nRCPT TO:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n" in sink.batches
    )


def test_nothing_is_pipelined_unasked(remote: Remote, sink: Sink) -> None:
    remote("a@x", "b@y")
    assert max(batch.count(b"\r\n") for batch in sink.batches[:5]) == 1


@pytest.mark.parametrize("extensions", [[], ["PIPELINING"]])
@pytest.mark.parametrize(
    ("step", "reply", "reports"),
    [
        (
            "greeting",
            "554 go away",
            b"ZConnected to 127.0.0.1 but greeting failed.\nRemote host said: 554 go away\n\0",
        ),
        (
            "EHLO",
            "421 no",
            b"ZConnected to 127.0.0.1 but my name was rejected.\nRemote host said: 421 no\n\0",
        ),
        (
            "MAIL",
            "550 no",
            b"DConnected to 127.0.0.1 but sender was rejected.\nRemote host said: 550 no\n\0",
        ),
        (
            "MAIL",
            "450 no",
            b"ZConnected to 127.0.0.1 but sender was rejected.\nRemote host said: 450 no\n\0",
        ),
        (
            "RCPT",
            "550-no\r\n550 such user",
            b"h127.0.0.1 does not like recipient.\nRemote host said: 550-no\n550 such user\n\0"
            b"DGiving up on 127.0.0.1.\n\0",
        ),
        (
            "RCPT",
            "450 later",
            b"s127.0.0.1 does not like recipient.\nRemote host said: 450 later\n\0"
            b"DGiving up on 127.0.0.1.\n\0",
        ),
        (
            "DATA",
            "554 no",
            b"r\0D127.0.0.1 failed on DATA command.\nRemote host said: 554 no\n\0",
        ),
        (
            "DATA",
            "451 no",
            b"r\0Z127.0.0.1 failed on DATA command.\nRemote host said: 451 no\n\0",
        ),
        (
            "message",
            "554 spam",
            b"r\0D127.0.0.1 failed after I sent the message.\nRemote host said: 554 spam\n\0",
        ),
        (
            "message",
            "451 full",
            b"r\0Z127.0.0.1 failed after I sent the message.\nRemote host said: 451 full\n\0",
        ),
        ("greeting", None, b"ZConnected to 127.0.0.1 but connection died. (#4.4.2)\n\0"),
        ("MAIL", None, b"ZConnected to 127.0.0.1 but connection died. (#4.4.2)\n\0"),
        ("DATA", None, b"r\0ZConnected to 127.0.0.1 but connection died. (#4.4.2)\n\0"),
        (
            "message",
            None,
            b"r\0ZConnected to 127.0.0.1 but connection died. Possible duplicate! (#4.4.2)\n\0",
        ),
    ],
)
def test_refusals(
    remote: Remote,
    sink: Sink,
    extensions: list[str],
    step: str,
    reply: str | None,
    reports: bytes,
) -> None:
    sink.extensions = extensions
    sink.replies[step] = reply
    assert remote() == reports


def test_each_recipient_has_its_report(remote: Remote, sink: Sink) -> None:
    answers = iter(["550 one", "250 two", "450 three"])

    class Replies(dict[str, str | None]):
        def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
            return next(answers) if key == "RCPT" else default

    sink.replies = Replies()
    assert remote("a@x", "b@x", "c@x") == (
        b"h127.0.0.1 does not like recipient.\nRemote host said: 550 one\n\0r\0"
        b"s127.0.0.1 does not like recipient.\nRemote host said: 450 three\n\0"
        b"K127.0.0.1 accepted message.\nRemote host said: 250 queued\n\0"
    )


def test_data_that_was_pipelined_for_nobody_is_withdrawn(remote: Remote, sink: Sink) -> None:
    sink.extensions = ["PIPELINING"]
    sink.replies["RCPT"] = "550 no"
    assert remote().endswith(b"DGiving up on 127.0.0.1.\n\0")
    assert sink.messages == [b".\r\n"]


def test_many_recipients_are_sent_in_windows(remote: Remote, sink: Sink) -> None:
    sink.extensions = ["PIPELINING"]
    recipients = [f"r{n}@example.net" for n in range(199)]
    assert remote(*recipients).startswith(b"r\0" * 199 + b"K")
    assert sink.records[0].count(b"RCPT TO:") == 199


def test_a_server_that_talks_nonsense(remote: Remote, sink: Sink) -> None:
    sink.replies["greeting"] = "HTTP/1.1 400 Bad Request"
    text = (
        b"ZConnected to 127.0.0.1 but it does not speak SMTP: a line without a code. (#4.5.0)\n\0"
    )
    assert remote() == text


def test_a_server_that_says_nothing_is_given_up(remote: Remote, sink: Sink, home: Path) -> None:
    (home / "control/timeoutremote").write_text("1\n")
    (home / "control/smtproutes").write_text(f":127.0.0.1:{mute_port(sink)}\n")
    assert remote() == b"ZConnected to 127.0.0.1 but connection died. (#4.4.2)\n\0"


def mute_port(sink: Sink) -> int:
    mute = socket.create_server(("127.0.0.1", 0))
    sink.mute = mute  # type: ignore[attr-defined]  # kept open as long as the sink
    return int(mute.getsockname()[1])


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return int(closed.getsockname()[1])


def test_nobody_listens(remote: Remote, home: Path) -> None:
    (home / "control/smtproutes").write_text(f":127.0.0.1:{closed_port()}\n")
    text = b"ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n\0"
    assert remote() == text


SMUGGLED = [
    b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\n.\r", b"\r.\n", b"\r.\r\n", b"\r.\r", b"\r\n.\r",
    b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\r\r\n.\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n",
]  # fmt: skip


@pytest.mark.parametrize("look_alike", SMUGGLED)
def test_one_message_stays_one_message(remote: Remote, sink: Sink, look_alike: bytes) -> None:
    message = b"Subject: x\n\none" + look_alike + b"MAIL FROM:<evil@x>\r\nRCPT TO:<y@z>\r\nDATA\r\n"
    assert remote(message=message).startswith(b"r\0K")
    assert len(sink.messages) == 1
    assert sink.messages[0].count(b"\r\n.\r\n") == 1


def test_a_message_may_come_through_a_pipe(
    home: Path, sink: Sink, capfd: pytest.CaptureFixture[str]
) -> None:
    read, write = os.pipe()
    os.write(write, MESSAGE)
    os.close(write)
    kept, here = os.dup(0), os.getcwd()
    os.dup2(read, 0)
    os.close(read)
    try:
        words = ["qmail-remote", "example.net", "", "joe@example.net"]
        assert program.main(words, {"QMAIL_HOME": str(home)}) == 0
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.chdir(here)
    assert capfd.readouterr().out.startswith("r\0K")
    assert sink.messages == [b"Subject: x\r\n\r\n..dot\r\nbody\r\n.\r\n"]


# --- wrong use and wrong settings ----------------------------------------------------


def test_usage(home: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert program.main(["qmail-remote", "host", "sender"], {"QMAIL_HOME": str(home)}) == 0
    text = "DI (qmail-remote) was invoked improperly. (#5.3.5)\n\0"
    assert capfd.readouterr().out == text


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("smtproutes", ":relay:x\n"),
        ("smtproutes", ":relay joe file:control/missing\n"),
        ("tlsdestinations", ":maybe\n"),
        ("timeoutremote", "soon\n"),
        ("me", "\n"),
    ],
)
def test_settings_that_make_no_sense_defer(
    remote: Remote, sink: Sink, home: Path, file: str, content: str
) -> None:
    (home / "control" / file).write_text(content)
    assert remote() == b"ZUnable to read control files. (#4.3.0)\n\0"
    assert sink.records == []


def test_a_missing_home_defers(remote: Remote, home: Path) -> None:
    for name in ("me", "smtproutes", "timeoutremote", "timeoutconnect"):
        (home / "control" / name).unlink()
    assert remote() == b"ZUnable to read control files. (#4.3.0)\n\0"


# --- authentication and TLS ----------------------------------------------------------


def test_tls_is_used_when_offered_whatever_the_certificate(
    remote: Remote, secure_sink: Sink
) -> None:
    assert remote().startswith(b"r\0K")
    assert secure_sink.secure == [True]
    assert len(secure_sink.messages) == 1


def test_what_was_offered_before_tls_is_forgotten(remote: Remote, secure_sink: Sink) -> None:
    secure_sink.extensions = ["SIZE 5", "PIPELINING"]
    secure_sink.extensions_in_tls = []
    assert remote().startswith(b"r\0K")
    assert b"SIZE=" not in secure_sink.records[0]


def test_a_handshake_that_fails_means_no_tls(remote: Remote, sink: Sink) -> None:
    sink.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # without a certificate
    assert remote().startswith(b"r\0K")
    assert sink.secure == [False, False]
    assert b"STARTTLS" in sink.records[0]
    assert b"STARTTLS" not in sink.records[1]


def test_starttls_that_is_refused_means_no_tls(remote: Remote, secure_sink: Sink) -> None:
    secure_sink.replies["STARTTLS"] = "454 not now"
    assert remote().startswith(b"r\0K")
    assert secure_sink.secure == [False]


def test_a_reply_injected_in_front_of_tls_is_not_believed(
    remote: Remote, secure_sink: Sink, home: Path
) -> None:
    (home / "control/tlsdestinations").write_text("127.0.0.1:require\n")
    secure_sink.replies["STARTTLS"] = "220 ready\r\n250-sink\r\n250 AUTH PLAIN"
    assert remote() == (
        b"ZConnected to 127.0.0.1 but TLS failed: the server spoke out of turn (#4.7.5).\n\0"
    )


@pytest.mark.parametrize("level", ["require", "verify"])
def test_required_tls_that_is_not_offered(
    remote: Remote, sink: Sink, home: Path, level: str
) -> None:
    (home / "control/tlsdestinations").write_text(f"127.0.0.1:{level}\n")
    assert remote() == (
        b"ZConnected to 127.0.0.1 but TLS is required here and not offered (#4.7.0).\n\0"
    )
    assert sink.messages == []


def test_required_tls_that_fails(remote: Remote, sink: Sink, home: Path) -> None:
    (home / "control/tlsdestinations").write_text("127.0.0.1:require\n")
    sink.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    report = remote()
    assert report.startswith(b"ZConnected to 127.0.0.1 but TLS failed: ")
    assert report.endswith(b" (#4.7.5).\n\0")
    assert sink.messages == []


def test_tls_can_be_switched_off(remote: Remote, secure_sink: Sink, home: Path) -> None:
    (home / "control/tlsdestinations").write_text("127.0.0.1:none\n")
    assert remote().startswith(b"r\0K")
    assert secure_sink.secure == [False]


def test_a_certificate_of_unknown_origin_is_not_verified(
    remote: Remote, secure_sink: Sink, home: Path
) -> None:
    (home / "control/tlsdestinations").write_text("127.0.0.1:verify\n")
    assert remote() == (
        b"ZConnected to 127.0.0.1 but TLS failed: self-signed certificate (#4.7.5).\n\0"
    )
    assert secure_sink.messages == []


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("127.0.0.1:verify", True),
        ("127.0.0.1:verify:mx.example.net", True),
        ("127.0.0.1:verify:a.example.net,mx.example.net", True),
        ("127.0.0.1:verify:a.example.net", False),
    ],
)
def test_the_certificate_has_to_have_the_right_name(
    remote: Remote, secure_sink: Sink, home: Path, certificate: Path, line: str, good: bool
) -> None:
    (home / "control/tlsdestinations").write_text(line + "\n")
    (home / "control/tlsauthorities.pem").write_bytes(certificate.read_bytes())
    report = remote()
    if good:
        assert report.startswith(b"r\0K")
    else:
        assert report == (
            b"ZConnected to 127.0.0.1 but TLS failed: certificate is for another name (#4.7.5).\n\0"
        )
    assert len(secure_sink.messages) == good


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
def test_authorities_are_found_in_the_systems_directory(
    remote: Remote,
    secure_sink: Sink,
    home: Path,
    certificate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = tmp_path / "certificates"
    directory.mkdir()
    paths = ssl.get_default_verify_paths()._replace(capath=str(directory))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    for name in (paths.openssl_cafile_env, paths.openssl_capath_env):
        monkeypatch.delenv(name, raising=False)
    (home / "control/tlsdestinations").write_text("127.0.0.1:verify\n")
    assert remote().startswith(b"ZConnected to 127.0.0.1 but TLS failed: self-signed")
    argv = ["openssl", "x509", "-noout", "-hash", "-in", str(certificate)]
    found = subprocess.run(argv, capture_output=True, check=True, text=True, timeout=20)
    (directory / f"{found.stdout.strip()}.0").symlink_to(certificate)
    assert remote().startswith(b"r\0K")


def test_authorities_that_are_not_there_defer(
    remote: Remote, secure_sink: Sink, home: Path
) -> None:
    (home / "control/tlsdestinations").write_text("127.0.0.1:verify\n")
    (home / "control/tlsauthorities").write_text("/nowhere/authorities.pem\n")
    assert remote() == (
        b"ZConnected to 127.0.0.1 but TLS failed: No such file or directory (#4.7.5).\n\0"
    )


def route_with_password(home: Path, sink: Sink, policy: str = "require") -> None:
    (home / "password").write_text("ge heim\n")
    line = f":127.0.0.1:{sink.port} joe file:{home}/password\n"
    (home / "control/smtproutes").write_text(line)
    (home / "control/tlsdestinations").write_text(f"127.0.0.1:{policy}\n")


def test_auth_plain_with_the_password_from_a_file(
    remote: Remote, secure_sink: Sink, home: Path
) -> None:
    route_with_password(home, secure_sink)
    secure_sink.extensions_in_tls = ["AUTH LOGIN PLAIN"]
    secure_sink.replies["AUTH"] = "235 welcome"
    assert remote().startswith(b"r\0K")
    token = base64.b64encode(b"\0joe\0ge heim")
    assert b"AUTH PLAIN " + token + b"\r\nMAIL FROM" in b"".join(secure_sink.batches)


def test_auth_login(remote: Remote, secure_sink: Sink, home: Path) -> None:
    route_with_password(home, secure_sink)
    secure_sink.extensions_in_tls = ["AUTH LOGIN"]
    secure_sink.replies |= {"AUTH": "334 VXNlcm5hbWU6", "challenges": "334 UGFzc3dvcmQ6|235 ok"}
    assert remote().startswith(b"r\0K")
    words = base64.b64encode(b"joe") + b"\r\n" + base64.b64encode(b"ge heim") + b"\r\n"
    assert b"AUTH LOGIN\r\n" + words in secure_sink.records[0]


def test_a_refused_password_defers(remote: Remote, secure_sink: Sink, home: Path) -> None:
    route_with_password(home, secure_sink)
    secure_sink.extensions_in_tls = ["AUTH PLAIN"]
    secure_sink.replies["AUTH"] = "535 no"
    assert remote() == (
        b"ZConnected to 127.0.0.1 but authentication was rejected.\nRemote host said: 535 no\n\0"
    )


def test_a_server_without_auth_defers(remote: Remote, secure_sink: Sink, home: Path) -> None:
    route_with_password(home, secure_sink)
    assert remote() == (b"ZConnected to 127.0.0.1 but it offers no authentication (#4.7.0).\n\0")


def test_a_password_is_sent_to_no_server_that_is_not_verified(
    remote: Remote, sink: Sink, home: Path, certificate: Path
) -> None:
    route_with_password(home, sink)
    (home / "control/tlsdestinations").unlink()
    sink.extensions = ["AUTH PLAIN"]
    assert remote().startswith(b"ZConnected to 127.0.0.1 but TLS is required")
    sink.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    sink.context.load_cert_chain(certificate)
    assert remote().startswith(b"ZConnected to 127.0.0.1 but TLS failed")
    assert not any(b"AUTH" in record for record in sink.records)


# --- which host ----------------------------------------------------------------------


class FakeResolver:
    """Answers from tables; a missing name does not exist."""

    mx: dict[bytes, list[Exchanger]]
    hosts: dict[bytes, list[str]]
    trouble: frozenset[bytes] = frozenset()

    def __init__(self, servers: resolve.Servers) -> None:
        pass

    def exchangers(self, domain: bytes) -> Exchangers:
        if domain in self.trouble:
            raise resolve.TroubleError
        if domain not in self.mx and domain not in self.hosts:
            raise resolve.NoSuchDomainError
        return Exchangers(list(self.mx.get(domain, [])))

    def addresses(self, host: bytes) -> Addresses:
        import ipaddress

        if host in self.trouble:
            raise resolve.TroubleError
        if host not in self.hosts:
            raise resolve.NoSuchDomainError
        return Addresses([ipaddress.ip_address(a) for a in self.hosts[host]])


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch, home: Path, sink: Sink) -> type[FakeResolver]:
    """A DNS in memory; all addresses lead to the sink, 127.0.0.1 is not ours."""
    (home / "control/smtproutes").unlink()
    tables = type("Tables", (FakeResolver,), {"mx": {}, "hosts": {}})
    monkeypatch.setattr(sender, "Resolver", tables)
    monkeypatch.setattr(hosts, "is_local", lambda address: address == b"127.0.0.99")
    monkeypatch.setattr(routes, "SMTP_PORT", sink.port)
    return tables


def test_exchangers_are_tried_in_order_of_preference(
    remote: Remote, dns: type[FakeResolver]
) -> None:
    dns.mx = {b"example.net": [Exchanger(20, b"b"), Exchanger(10, b"a"), Exchanger(30, b"c")]}
    dns.hosts = {b"a": ["127.0.0.2"], b"b": ["127.0.0.1"], b"c": ["127.0.0.3"]}
    # Nobody listens on 127.0.0.2.
    assert remote() == b"r\0K127.0.0.1 accepted message.\nRemote host said: 250 queued\n\0"


def test_a_server_that_refuses_to_talk_is_passed_over(
    remote: Remote, dns: type[FakeResolver], sink: Sink
) -> None:
    dns.mx = {b"example.net": [Exchanger(10, b"a"), Exchanger(20, b"b")]}
    dns.hosts = {b"a": ["127.0.0.1"], b"b": ["127.0.0.2"]}
    sink.replies["greeting"] = "421 busy"
    # The second one does not answer at all: what the first one said is reported.
    assert remote() == (
        b"ZConnected to 127.0.0.1 but greeting failed.\nRemote host said: 421 busy\n\0"
    )


@pytest.mark.parametrize("reply", ["450 busy", "521 no mail here", None])
def test_after_a_greeting_that_is_none_the_next_address_gets_the_mail(
    remote: Remote, dns: type[FakeResolver], sink: Sink, reply: str | None
) -> None:
    second = type(sink)("127.0.0.2", sink.port)
    dns.mx = {b"example.net": [Exchanger(10, b"a"), Exchanger(20, b"b")]}
    dns.hosts = {b"a": ["127.0.0.1"], b"b": ["127.0.0.2"]}
    sink.replies["greeting"] = reply
    try:
        assert remote().startswith(b"r\0K127.0.0.2 accepted")
    finally:
        second.close()


def test_a_refused_mail_is_refused_whatever_the_next_address_says(
    remote: Remote, dns: type[FakeResolver], sink: Sink
) -> None:
    second = type(sink)("127.0.0.2", sink.port)
    dns.mx = {b"example.net": [Exchanger(10, b"a"), Exchanger(20, b"b")]}
    dns.hosts = {b"a": ["127.0.0.1"], b"b": ["127.0.0.2"]}
    sink.replies["MAIL"] = "450 not now"
    try:
        assert remote().startswith(b"ZConnected to 127.0.0.1 but sender was rejected.")
        assert second.records == []
    finally:
        second.close()


def test_without_an_exchanger_the_host_itself_is_used(
    remote: Remote, dns: type[FakeResolver]
) -> None:
    dns.hosts = {b"example.net": ["127.0.0.1"]}
    assert remote().startswith(b"r\0K127.0.0.1 ")


def test_mail_does_not_go_round_in_circles(remote: Remote, dns: type[FakeResolver]) -> None:
    dns.mx = {b"example.net": [Exchanger(10, b"me"), Exchanger(20, b"backup")]}
    dns.hosts = {b"me": ["127.0.0.99"], b"backup": ["127.0.0.1"]}
    assert remote() == (
        b"DSorry. Although I'm listed as a best-preference MX or A for that host,\n"
        b"it isn't in my control/locals file, so I don't treat it as local. (#5.4.6)\n\0"
    )


def test_an_address_in_moreipme_is_our_own(
    remote: Remote, dns: type[FakeResolver], home: Path
) -> None:
    dns.hosts = {b"example.net": ["127.0.0.1"]}
    (home / "control/moreipme").write_text("127.0.0.1\n")
    assert remote().startswith(b"DSorry. Although I'm listed")


def test_an_address_literal(remote: Remote, dns: type[FakeResolver]) -> None:
    assert remote("joe@[127.0.0.1]", host="[127.0.0.1]").startswith(b"r\0K127.0.0.1 ")


@pytest.mark.parametrize(
    ("file", "content"), [("dane", "maybe\n"), ("resolvers", "ns.example.net\n")]
)
def test_whom_to_ask_has_to_make_sense(
    remote: Remote, dns: type[FakeResolver], home: Path, file: str, content: str
) -> None:
    (home / "control" / file).write_text(content)
    assert remote() == b"ZUnable to read control files. (#4.3.0)\n\0"


@pytest.mark.parametrize(
    ("mx", "hosts", "trouble", "report"),
    [
        ({}, {}, [], b"DSorry, I couldn't find any host named example.net. (#5.1.2)\n\0"),
        ({}, {}, [b"example.net"], b"ZSorry, I couldn't find any host by that name. (#4.1.2)\n\0"),
        (
            {},
            {b"example.net": []},
            [],
            b"DSorry, I couldn't find a mail exchanger or IP address. (#5.4.4)\n\0",
        ),
        (
            {b"example.net": [Exchanger(10, b"gone")]},
            {},
            [],
            b"DSorry, I couldn't find a mail exchanger or IP address. (#5.4.4)\n\0",
        ),
        (
            {b"example.net": [Exchanger(10, b"gone"), Exchanger(10, b"slow")]},
            {},
            [b"slow"],
            b"ZSorry, I couldn't find any host by that name. (#4.1.2)\n\0",
        ),
        (
            {b"example.net": [Exchanger(0, b"")]},
            {},
            [],
            b"DSorry, that domain says that it accepts no mail. (#5.1.10)\n\0",
        ),
    ],
)
def test_names_that_lead_nowhere(
    remote: Remote,
    dns: type[FakeResolver],
    mx: dict[bytes, list[Exchanger]],
    hosts: dict[bytes, list[str]],
    trouble: list[bytes],
    report: bytes,
) -> None:
    dns.mx, dns.hosts, dns.trouble = mx, hosts, frozenset(trouble)
    assert remote() == report


def test_a_relay_without_an_address_defers(remote: Remote, home: Path) -> None:
    (home / "control/smtproutes").write_text(":no-such-relay.invalid:25\n")
    assert remote() == b"ZSorry, I couldn't find any host by that name. (#4.1.2)\n\0"


def test_a_host_that_timed_out_is_left_alone(remote: Remote, sink: Sink, home: Path) -> None:
    import time

    (home / "queue/lock").mkdir(parents=True)
    table = bytes((127, 0, 0, 1, 5, 0, 0, 0)) + int(time.time()).to_bytes(4, "little") + bytes(4)
    path = home / "queue/lock/tcpto"
    path.write_bytes(table + bytes(1024 - 16))
    text = b"ZSorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n\0"
    assert remote() == text
    assert sink.records == []
    path.write_bytes(bytes((127, 0, 0, 1, 1)) + table[5:] + bytes(1024 - 16))
    assert remote().startswith(b"r\0K")
    assert path.read_bytes()[4] == 0


def test_ipv6(remote: Remote, sink: Sink, home: Path) -> None:
    try:
        sink = type(sink)("::1")
    except OSError:
        pytest.skip("no IPv6 here")
    (home / "control/smtproutes").write_text(f":[::1]:{sink.port}\n")
    assert remote() == b"r\0K::1 accepted message.\nRemote host said: 250 queued\n\0"
    sink.close()
