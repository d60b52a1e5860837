"""acceptserver with TLS: who holds the key, and what becomes of certificates and crashes."""

import contextlib
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .conftest import (
    PATIENCE,
    Certificate,
    Client,
    Server,
    children,
    descriptors,
    lax,
    replace,
    status,
    wait_until,
)

Run = Callable[..., Server]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")


def subject(client: Client) -> str:
    """The name in the certificate that the server showed."""
    assert isinstance(client.sock, ssl.SSLSocket)
    shown = client.sock.getpeercert(binary_form=True)
    assert shown
    name = x509.load_der_x509_certificate(shown).subject
    return str(name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def implicit(server: Server, context: ssl.SSLContext | None = None) -> Client:
    client = server.connect()
    client.wrap(context)
    assert client.line() == "220 ready"
    return client


# What the client gets.


def test_starttls_goes_on_in_the_same_process_with_the_variables(
    run: Run, certificate: Certificate
) -> None:
    server = run("-t", env=certificate.env)
    with server.connect() as client:
        client.line()
        before = client.ask("PID")
        client.start_tls(name="mx.example.org")
        assert client.ask("PID") == before
        assert client.ask("ENV SSL_PROTOCOL") == "TLSv1.3"
        assert client.ask("ENV SSL_CIPHER") == client.sock.cipher()[0]
        assert client.ask("ENV SSL_TLS_SNI_SERVERNAME") == "mx.example.org"
        assert subject(client) == "mail.example.org"
        assert client.ask("QUIT") == "221 bye"
        assert client.rest() == b""  # a close_notify, or this would raise


def test_implicit_tls_comes_before_the_banner(run: Run, certificate: Certificate) -> None:
    server = run("-T", env={**certificate.env, "UCSPITLS": "!"})
    with implicit(server) as client:
        assert client.ask("ENV SSL_PROTOCOL") == "TLSv1.3"
        assert client.ask("ENV UCSPITLS") == "(unset)"
        assert client.ask("QUIT") == "221 bye"


@pytest.mark.parametrize(("given", "seen"), [(None, ""), ("!", "!"), ("-", "-"), ("", "")])
def test_the_offer_of_tls_is_in_the_environment(
    run: Run, certificate: Certificate, given: str | None, seen: str
) -> None:
    env = certificate.env if given is None else {**certificate.env, "UCSPITLS": given}
    server = run("-t", env=env)
    with server.connect() as client:
        client.line()
        assert client.ask("ENV UCSPITLS") == seen
        for name in "CERTFILE", "KEYFILE", "TLS_UID", "TLS_GID":
            assert client.ask(f"ENV {name}") == "(unset)"


def test_tls_1_2_has_forward_secrecy_and_authenticated_encryption_only(
    run: Run, certificate: Certificate
) -> None:
    server = run("-T", env=certificate.env)
    context = lax()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with implicit(server, context) as client:
        name, version, _ = client.sock.cipher()
        assert version == "TLSv1.2"
        assert name.startswith("ECDHE-")
        assert "GCM" in name or "CHACHA20" in name
    weak = lax()
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0")
    with server.connect() as client, pytest.raises(ssl.SSLError):
        client.wrap(weak)
    server.wait_for_log("TLS handshake failed: no shared cipher ip=127.0.0.1 session=")


@pytest.mark.parametrize("version", ["tls1", "tls1_1"])
def test_old_versions_are_refused(run: Run, certificate: Certificate, version: str) -> None:
    server = run("-T", env=certificate.env)
    subprocess.run(
        [
            *("openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", f"-{version}"),
            *("-cipher", "ALL:@SECLEVEL=0"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    line = server.wait_for_log("TLS handshake failed")
    assert "unsupported protocol" in line or "version too low" in line


def test_sessions_resume_across_engines(run: Run, certificate: Certificate) -> None:
    server = run("-T", env=certificate.env)
    context = lax()
    with implicit(server, context) as client:
        assert client.ask("ENV SSL_SESSION_RESUMED") == "Initial"
        session = client.sock.session
    with server.connect() as client:
        client.sock = context.wrap_socket(client.sock, server_hostname="localhost", session=session)
        client.line()
        assert client.sock.session_reused
        assert client.ask("ENV SSL_SESSION_RESUMED") == "Resumed"


def test_openssl_is_content(run: Run, certificate: Certificate) -> None:
    server = run("-T", env=certificate.env)
    done = subprocess.run(
        [
            *("openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-quiet"),
            *("-CAfile", str(certificate.certificate), "-verify_return_error"),
            *("-verify_hostname", "mail.example.org"),
        ],
        input=b"QUIT\r\n",
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"220 ready\n221 bye\n"


def test_the_certificate_is_chosen_by_server_name(
    run: Run, certificate: Certificate, tmp_path: Path
) -> None:
    exact = Certificate(tmp_path, "exact", "exact")
    wild = Certificate(tmp_path, "wild", "wild")
    env = certificate.env
    for name, pair in ("one.example.net", exact), ("*.example.com", wild):
        env[f"CERTFILE:{name}"] = str(pair.certificate)
        env[f"KEYFILE:{name}"] = str(pair.key)
    server = run("-T", env=env)
    for asked, expected in {
        "one.example.net": "exact",
        "ONE.Example.NET": "exact",
        "two.example.net": "mail.example.org",
        "any.example.com": "wild",
        "a.b.example.com": "mail.example.org",
        "example.com": "mail.example.org",
        None: "mail.example.org",
    }.items():
        with server.connect() as client:
            client.wrap(name=asked)
            assert subject(client) == expected, asked


def test_a_server_name_that_is_no_name_does_not_reach_the_environment(
    run: Run, certificate: Certificate
) -> None:
    server = run("-T", env=certificate.env)
    with server.connect() as client:
        client.wrap(name="evil header")
        client.line()
        assert client.ask("ENV SSL_TLS_SNI_SERVERNAME") == "(unset)"


# What goes wrong, and what is said of it.


def test_plaintext_on_an_implicit_port_ends_in_one_log_line(
    run: Run, certificate: Certificate
) -> None:
    server = run("-T", env=certificate.env)
    with server.connect() as client:
        client.say("GET / HTTP/1.1")
        assert b"220" not in client.rest()
    assert "http request" in server.wait_for_log("TLS handshake failed")
    with server.connect() as client:
        client.say("EHLO example.org")
        client.rest()
    server.wait_for_log("TLS handshake failed: wrong version number")
    assert "status 1 " in server.wait_for_log(" end ")


def test_each_session_is_logged_when_that_is_wanted(run: Run, certificate: Certificate) -> None:
    server = run("-T", "-V", env=certificate.env)
    with implicit(server) as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        cipher, version, _ = client.sock.cipher() or ("", "", 0)
        said = server.wait_for_log("TLS started: ")
    assert f"acceptserver: TLS started: {version} {cipher} ip=127.0.0.1 session=" in said


def test_plaintext_sent_before_the_handshake_is_never_executed(
    run: Run, certificate: Certificate
) -> None:
    server = run("-t", env=certificate.env)
    with server.connect() as client:
        client.line()
        assert client.ask("STARTTLS") == "220 go"
        client.say("ENV PATH")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            client.wrap()
    server.wait_for_log("TLS handshake failed")


def test_a_handshake_that_stalls_is_ended_in_time(run: Run, certificate: Certificate) -> None:
    server = run("-T", "-K", "200", env=certificate.env)
    with server.connect() as client:
        client.sock.sendall(b"\x16\x03\x01")  # the start of a record, and no more
        assert client.rest() == b""
    assert "ip=127.0.0.1" in server.wait_for_log("TLS handshake failed: timed out")


def test_dripping_does_not_stretch_the_deadline(run: Run, certificate: Certificate) -> None:
    server = run("-T", "-K", "300", env=certificate.env)
    with server.connect() as client:
        client.sock.settimeout(0.05)
        ended = False
        for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100):
            try:
                client.sock.sendall(bytes([byte]))
                if client.sock.recv(1) == b"":
                    ended = True
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                ended = True
                break
        assert ended
    server.wait_for_log("TLS handshake failed: timed out")


def test_a_client_that_leaves_during_the_handshake_leaves_no_process(
    run: Run, certificate: Certificate
) -> None:
    server = run("-T", env=certificate.env)
    with server.connect() as client:
        client.sock.sendall(b"\x16\x03\x01")
    server.wait_for_log("TLS handshake failed: the client closed the connection")
    server.wait_for_log(" end ")
    wait_until(lambda: children(server.zygotes()[0]) == [], "engine gone")


def test_a_killed_engine_ends_only_its_own_session(run: Run, certificate: Certificate) -> None:
    server = run("-t", env=certificate.env)
    with server.connect() as victim, server.connect() as other:
        for client in victim, other:
            client.line()
        victim.start_tls()
        victim.ask("PID")
        (engine,) = children(server.zygotes()[0])
        other.start_tls()
        os.kill(engine, signal.SIGKILL)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            victim.rest()
        server.wait_for_log(" end ")
        assert other.ask("QUIT") == "221 bye"


def test_a_killed_zygote_is_replaced_and_its_engines_live_on(
    run: Run, certificate: Certificate
) -> None:
    server = run("-t", env=certificate.env)
    with server.connect() as old, server.connect() as orphan:
        old.line(), orphan.line()
        old.start_tls()
        (zygote,) = server.zygotes()
        os.kill(zygote, signal.SIGKILL)
        server.wait_for_log(f"TLS: zygote {zygote} died")
        # Connections wait for the new zygote: none of them misses TLS.
        for _ in range(3):
            with server.connect() as client:
                client.line()
                client.start_tls()
                assert client.ask("QUIT") == "221 bye"
        assert old.ask("QUIT") == "221 bye"
        # One that was accepted before has lost its way to TLS, and is told so.
        assert orphan.ask("STARTTLS") == "220 go"
        assert orphan.rest() == b""


def test_a_session_that_ends_takes_its_engine_with_it(run: Run, certificate: Certificate) -> None:
    server = run("-t", env=certificate.env)
    with server.connect() as client:
        client.line()
        client.start_tls()
        pid = int(client.ask("PID").split()[0])
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: children(server.zygotes()[0]) == [], "engine gone")
        assert client.rest() == b""


def test_a_reset_by_the_client_ends_session_and_engine(run: Run, certificate: Certificate) -> None:
    server = run("-t", env=certificate.env)
    client = server.connect()
    client.line()
    client.start_tls()
    client.ask("PID")
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    server.wait_for_log(" end ")
    wait_until(lambda: children(server.zygotes()[0]) == [], "engine gone")


def test_a_server_name_that_is_not_ascii_is_one_log_line(
    run: Run, certificate: Certificate
) -> None:
    server = run("-T", env=certificate.env)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client_side = lax().wrap_bio(incoming, outgoing, server_hostname="xxxx.example.org")
    with pytest.raises(ssl.SSLWantReadError):
        client_side.do_handshake()
    with server.connect() as client:
        client.sock.sendall(outgoing.read().replace(b"xxxx.", b"\xff\xfe\xfd\xfc."))
        client.rest()
    server.wait_for_log("TLS handshake failed: the server name is not ASCII ip=127.0.0.1")
    assert server.log().count("TLS") == 1


# Certificates that change.


def test_a_new_certificate_is_used_from_the_next_connection_on(
    run: Run, certificate: Certificate
) -> None:
    server = run("-T", env=certificate.env)
    with implicit(server) as old:
        certificate.issue("new.example.org")
        with implicit(server) as client:
            assert subject(client) == "new.example.org"
        assert old.ask("QUIT") == "221 bye"
    server.wait_for_log("TLS: new certificate in use")
    wait_until(lambda: len(server.zygotes()) == 1, "the old zygote ends with its connections")


def test_a_bad_certificate_changes_nothing_and_is_told_once(
    run: Run, certificate: Certificate
) -> None:
    server = run("-T", env=certificate.env)
    replace(certificate.certificate, b"not a certificate")
    for _ in range(3):
        with implicit(server) as client:
            assert subject(client) == "mail.example.org"
        server.wait_for_log("the certificate in use stays")
    assert server.log().count("the certificate in use stays") == 1
    certificate.issue("good.example.org")
    with implicit(server) as client:
        assert subject(client) == "good.example.org"


def test_a_key_that_does_not_fit_its_certificate_is_named(
    run: Run, certificate: Certificate, tmp_path: Path
) -> None:
    other = Certificate(tmp_path, "other", "other")
    server = run("-T", env={**certificate.env, "KEYFILE": str(other.key)})
    assert server.process.wait(PATIENCE) == 111
    assert "key values mismatch" in server.log()
    assert len(server.log().splitlines()) == 1


def test_an_encrypted_key_is_refused_and_nobody_is_asked(
    run: Run, certificate: Certificate
) -> None:
    encrypted = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", certificate.key, "-passout", "pass:secret"],
        capture_output=True,
        check=True,
    )
    replace(certificate.key, encrypted.stdout)
    server = run("-T", env=certificate.env)
    assert server.process.wait(PATIENCE) == 111
    assert "the key is encrypted" in server.log()


@pytest.mark.parametrize("missing", ["CERTFILE", "KEYFILE"])
def test_tls_without_its_files_is_misuse(run: Run, certificate: Certificate, missing: str) -> None:
    env = certificate.env
    del env[missing]
    server = run("-t", env=env)
    assert server.process.wait(PATIENCE) == 100
    assert f"{missing} is not set" in server.log()


@needs_root
def test_root_never_serves_tls_as_root(run: Run, certificate: Certificate) -> None:
    env = certificate.env
    del env["TLS_UID"]
    server = run("-t", env=env)
    assert server.process.wait(PATIENCE) == 111
    assert "TLS_UID and TLS_GID are not both set" in server.log()


# Who holds what.


@needs_root
def test_zygote_and_engine_are_the_tls_user_and_hold_nothing_else(
    run: Run, certificate: Certificate
) -> None:
    server = run("-t", "-u", "7791", "-g", "2108", env=certificate.env)
    with server.connect() as first, server.connect() as second:
        for client in first, second:
            client.line()
            client.start_tls()
            client.ask("PID")
        (zygote,) = server.zygotes()
        engines = children(zygote)
        assert len(engines) == 2
        for pid in zygote, *engines:
            facts = status(pid)
            assert facts["Uid"].split() == facts["Gid"].split() == ["7801"] * 4
            assert facts["Groups"] in ("", "7801")
            assert int(facts["CapPrm"], 16) == 0
            # Not dumpable: to /proc it is root's, so its own user cannot look inside.
            assert os.stat(f"/proc/{pid}/mem").st_uid == 0
        kinds = sorted(re.sub(r":.*", "", kind) for kind in descriptors(zygote).values())
        assert kinds == ["/dev/null", "/dev/null", str(server.log_path), "socket"]
        sockets = []
        for engine in engines:
            opened = descriptors(engine)
            kinds = sorted(re.sub(r":.*", "", kind) for kind in opened.values())
            assert kinds == [
                *("/dev/null", "/dev/null", str(server.log_path)),
                *("pipe", "pipe", "socket"),
            ]
            sockets += [kind for kind in opened.values() if kind.startswith(("socket", "pipe"))]
        assert len(set(sockets)) == 6  # no engine holds what is another's


@needs_root
def test_the_key_is_out_of_reach_of_the_connection(run: Run, certificate: Certificate) -> None:
    server = run("-t", "-u", "7791", "-g", "2108", env=certificate.env)
    key = serialization.load_pem_private_key(certificate.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    number = key.private_numbers().private_value
    with server.connect() as client:
        client.line()
        client.start_tls()
        modules = client.ask("MODULES").split()
        assert "ssl" not in modules
        assert "_ssl" not in modules
        pid = int(client.ask("PID").split()[0])
        assert str(certificate.key) not in descriptors(pid).values()
        (zygote,) = server.zygotes()
        assert holds(zygote, number)  # so that a miss below means something
        assert not holds(pid, number)
        assert not holds(server.pid, number)
        # Neither the network nor the way to the zygote is left once TLS has started.
        assert sorted(descriptors(pid)) == [0, 1, 2]


def holds(pid: int, number: int) -> bool:
    """Whether number stands anywhere in the memory of pid, in either byte order."""
    forms = number.to_bytes(32, "little"), number.to_bytes(32, "big")
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, permissions, *_ = line.split(" ")
            if permissions.startswith("rw") and "[v" not in line:
                start, end = (int(bound, 16) for bound in span.split("-"))
                memory.seek(start)
                content = memory.read(end - start)
                if any(form in content for form in forms):
                    return True
    return False


def test_a_foreign_program_gets_real_descriptors(
    run: Run, certificate: Certificate, tmp_path: Path
) -> None:
    script = tmp_path / "foreign"
    script.write_text(
        """#!/bin/bash
echo "220 ready"
read -r word
echo "220 go"
printf Y >&"$SSLCTLFD"
exec <&"$SSLREADFD" >&"$SSLWRITEFD"
variables=$(tr '\\0' ' ' <&"$SSLCTLFD")
read -r word
echo "got $word, $variables"
"""
    )
    script.chmod(0o755)
    server = run("-t", env=certificate.env, program=[str(script)])
    with server.connect() as client:
        client.line()
        client.start_tls()
        assert client.ask("hello").startswith("got hello\r, SSL_PROTOCOL=TLSv1.3 SSL_CIPHER=TLS_")
        assert client.rest() == b""
    server.wait_for_log("status 0")
    wait_until(lambda: children(server.zygotes()[0]) == [], "engine gone")


def test_a_foreign_program_that_never_asks_leaves_no_engine(
    run: Run, certificate: Certificate
) -> None:
    server = run("-t", env=certificate.env, program=["/bin/cat"])
    with server.connect() as client:
        assert client.ask("hello") == "hello"
        wait_until(lambda: len(children(server.zygotes()[0])) == 1, "engine waits")
    server.wait_for_log(" end ")
    wait_until(lambda: children(server.zygotes()[0]) == [], "engine gone")


# Data.


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_ten_megabytes_both_ways_through_a_slow_reader(
    run: Run, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    server = run("-T", env=certificate.env)
    context = lax()
    context.maximum_version = version
    content = os.urandom(1 << 20) * 10
    with implicit(server, context) as client:
        assert client.ask("ECHO") == "220 echo"
        assert exchange(client.sock, content, pace=20_000) == content


def exchange(sock: ssl.SSLSocket, content: bytes, pace: int) -> bytes:
    """Send content while reading as many bytes, pace at a time, on one thread."""
    sock.settimeout(0)
    unsent, got = memoryview(content), bytearray()
    poller = select.poll()
    while len(got) < len(content):
        poller.register(sock, select.POLLIN | (select.POLLOUT if unsent else 0))
        if not sock.pending():
            assert poller.poll(PATIENCE * 1000), "stuck"
        if unsent:
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                unsent = unsent[sock.send(unsent[:65536]) :]
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
            chunk = sock.recv(pace)
            if not chunk:
                break
            got += chunk
    sock.settimeout(PATIENCE)
    return bytes(got)


def test_a_client_that_says_goodbye_still_gets_the_answer(
    run: Run, certificate: Certificate
) -> None:
    # Sends close_notify after its last command, then reads: the reply is made after it.
    server = run("-T", env=certificate.env)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = lax().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with server.connect() as client:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                client.sock.sendall(outgoing.read())
                incoming.write(client.sock.recv(65536))
        tls.write(b"SINK\r\n" + bytes(1_000_000))
        with contextlib.suppress(ssl.SSLError):
            tls.unwrap()
        client.sock.sendall(outgoing.read())
        got = b""
        while chunk := client.sock.recv(65536):
            incoming.write(chunk)
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                while piece := tls.read(65536):
                    got += piece
    assert got == b"220 ready\n250 1000000\n"


def test_half_closing_tcp_without_a_word_still_gets_the_answer(
    run: Run, certificate: Certificate
) -> None:
    server = run("-T", env=certificate.env)
    with implicit(server) as client:
        client.say("SINK")
        client.sock.sendall(bytes(100_000))
        socket.socket.shutdown(client.sock, socket.SHUT_WR)  # TCP's, without close_notify
        assert client.line() == "250 100000"


def test_what_a_finished_program_wrote_reaches_a_slow_client_whole(
    run: Run, certificate: Certificate
) -> None:
    server = run("-T", env=certificate.env)
    with implicit(server) as client:
        client.say("SEND 300000")
        server.wait_for_log(" end ")
        assert len(client.rest()) == 300_000


def test_an_idle_tunnel_costs_no_processor_time(run: Run, certificate: Certificate) -> None:
    server = run("-T", env=certificate.env)
    with implicit(server) as client:
        client.ask("PID")
        (engine,) = children(server.zygotes()[0])

        def switches() -> int:
            facts = status(engine)
            return int(facts["voluntary_ctxt_switches"]) + int(facts["nonvoluntary_ctxt_switches"])

        def sleeps() -> bool:
            before = switches()
            time.sleep(0.3)
            return switches() == before

        wait_until(sleeps, "the engine sleeps")


def ticks(pid: int) -> int:
    """The processor time of pid so far, in ticks of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def is_still(pid: int) -> bool:
    before = ticks(pid)
    time.sleep(0.2)
    return ticks(pid) == before


def test_a_reader_that_stalls_stops_the_program_and_spins_nobody(
    run: Run, certificate: Certificate
) -> None:
    server = run("-T", env=certificate.env)
    with implicit(server) as client:
        client.say("SEND 30000000")
        (engine,) = children(server.zygotes()[0])
        wait_until(lambda: is_still(engine), "the engine waits")
        assert int(status(engine)["VmRSS"].split()[0]) < 60_000  # KiB: nothing heaps up


@pytest.mark.parametrize("reset", [False, True])
def test_a_program_that_never_reads_spins_nobody_when_the_client_leaves(
    run: Run, certificate: Certificate, reset: bool
) -> None:
    server = run("-T", "-G", "0", env=certificate.env, program=["sleep", "1000"])
    client = server.connect()
    client.wrap()
    client.sock.settimeout(0)
    with contextlib.suppress(ssl.SSLWantWriteError):
        for _ in range(200):
            client.sock.send(bytes(65536))
    (engine,) = children(server.zygotes()[0])
    wait_until(lambda: is_still(engine), "the engine is full")
    if reset:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    wait_until(lambda: is_still(engine), "the engine waits")
    assert int(status(engine)["VmRSS"].split()[0]) < 60_000


def test_what_is_not_tls_in_the_middle_of_a_session_ends_it(
    run: Run, certificate: Certificate
) -> None:
    server = run("-T", env=certificate.env)
    with implicit(server) as client:
        client.ask("PID")
        socket.socket.sendall(client.sock, b"QUIT\r\nand more of what is no record\r\n")
        with pytest.raises(ssl.SSLError):
            client.rest()
    server.wait_for_log("TLS ended: ")
    server.wait_for_log(" end ")
    wait_until(lambda: children(server.zygotes()[0]) == [], "engine gone")
