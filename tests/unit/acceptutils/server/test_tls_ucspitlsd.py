"""ucspitlsd as s6-ucspitlsd: options, environment, commands, on any server's socket."""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acceptutils.tls.settings import ClientCertificate, Closing
from acceptutils.tls.ucspitlsd import UsageError, parse

from .conftest import PATIENCE, Certificate, Client, lax

# A program that knows the interface only: shell, descriptors, environment.
PROGRAM = """#!/bin/bash
read -r word
echo "220 go"
printf %s "$COMMAND" >&"$SSLCTLFD"
exec <&"$SSLREADFD" >&"$SSLWRITEFD"
exec {SSLREADFD}<&- {SSLWRITEFD}>&-
tr '\\0' '\\n' <&"$SSLCTLFD" >"$REPORT"
while read -r word rest; do
  case $word in
    env*) printenv "${rest%?}" || echo "(unset)";;
    eof*) exec >&-; cat >"$REPORT.rest"; exit;;
    *) echo "got ${word%?}";;
  esac
done
echo "end" >>"$REPORT"
"""

Run = Callable[..., Client]


class Session(Client):
    """A client of one ucspitlsd, whose log and report can be read."""

    process: "subprocess.Popen[bytes]"
    directory: Path

    def end(self) -> int:
        self.close()
        return self.process.wait(PATIENCE)

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    @property
    def report(self) -> list[str]:
        return (self.directory / "report").read_text().splitlines()


@pytest.fixture
def serve(tmp_path: Path, certificate: Certificate) -> Iterator[Callable[..., Session]]:
    """Run ucspitlsd on one end of a connection and return a client on the other."""
    program = tmp_path / "program"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    sessions: list[Session] = []

    def start(
        *options: str, command: str = "Y", env: dict[str, str | None] | None = None
    ) -> Session:
        whole = {
            "PATH": os.environ["PATH"],
            "COMMAND": command,
            "REPORT": str(tmp_path / "report"),
            **certificate.env,
            **(env or {}),
        }
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
        with theirs, (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ucspi", "ucspitlsd", *options, str(program)],
                env={name: value for name, value in whole.items() if value is not None},
                stdin=theirs,
                stdout=theirs,
                stderr=log,
            )
        session = Session(ours)
        session.process, session.directory = process, tmp_path
        sessions.append(session)
        return session

    yield start
    for session in sessions:
        session.close()
        try:
            session.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            session.process.kill()
            session.process.wait()
        print(session.log)
        assert "Traceback" not in session.log


Serve = Callable[..., Session]


def test_y_reports_the_variables(serve: Serve) -> None:
    session = serve()
    session.start_tls(name="mail.example.org")
    assert session.ask("hello") == "got hello"
    assert session.report[:2] == ["SSL_PROTOCOL=TLSv1.3", f"SSL_CIPHER={session.sock.cipher()[0]}"]
    assert "SSL_TLS_SNI_SERVERNAME=mail.example.org" in session.report


def test_small_y_starts_without_a_report(serve: Serve) -> None:
    session = serve(command="y")
    session.start_tls()
    assert session.ask("hello") == "got hello"
    assert session.report == []


def test_any_other_command_is_refused(serve: Serve) -> None:
    session = serve(command="x")
    session.say("STARTTLS")
    session.line()
    assert session.rest() == b""
    session.end()
    assert "unknown command on the control descriptor" in session.log


@pytest.mark.parametrize(
    ("options", "seen"), [([], "(unset)"), (["-z"], "(unset)"), (["-Z"], "7801")]
)
def test_the_environment_is_cleaned_unless_told_otherwise(
    serve: Serve, options: list[str], seen: str
) -> None:
    session = serve(*options)
    session.start_tls()
    assert session.ask("env TLS_UID") == seen
    assert session.ask("env PATH") == os.environ["PATH"]


def test_a_stalled_handshake_ends_after_k_milliseconds(serve: Serve) -> None:
    session = serve("-K", "200")
    session.ask("STARTTLS")
    assert session.rest() == b""
    session.end()
    assert "ucspitlsd: TLS handshake failed: timed out" in session.log


def test_missing_files_are_found_when_tls_is_wanted(serve: Serve) -> None:
    session = serve(env={"KEYFILE": "/nonexistent"})
    session.ask("STARTTLS")
    assert session.rest() == b""
    session.end()
    assert "/nonexistent: No such file or directory" in session.log


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can stay root")
def test_tls_as_root_is_possible_as_in_the_original_and_logged(serve: Serve) -> None:
    session = serve(env={"TLS_UID": None, "TLS_GID": None})
    session.start_tls()
    assert session.ask("hello") == "got hello"
    assert "TLS runs as root" in session.log


def test_server_names_need_a_level(serve: Serve, certificate: Certificate, tmp_path: Path) -> None:
    named = Certificate(tmp_path, "named", "named")
    env = {"CERTFILE:localhost": str(named.certificate), "KEYFILE:localhost": str(named.key)}
    for options, expected in (
        ([], certificate),
        (["-k", "1"], named),
        (["-k", "2"], named),
    ):
        with serve(*options, env=env) as session:
            session.start_tls(name="localhost")
            assert session.sock.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(
                expected.certificate.read_text()
            )
    with serve("-k", "2", env=env) as session, pytest.raises(ssl.SSLError):
        session.start_tls(name="other")


def test_a_server_name_that_is_not_ascii_is_one_log_line(serve: Serve) -> None:
    session = serve()
    session.ask("STARTTLS")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        lax().wrap_bio(incoming, outgoing, server_hostname="xxxx.example.org").do_handshake()
    session.sock.sendall(outgoing.read().replace(b"xxxx.", b"\xff\xfe\xfd\xfc."))
    session.rest()
    session.end()
    assert session.log == "ucspitlsd: TLS handshake failed: the server name is not ASCII\n"


def with_certificate(pair: Certificate) -> ssl.SSLContext:
    context = lax()
    context.load_cert_chain(pair.certificate, pair.key)
    return context


@pytest.mark.parametrize("variable", ["CAFILE", "CADIR"])
@pytest.mark.parametrize("option", ["-y", "-Y"])
def test_a_clients_certificate_is_checked_and_told(
    serve: Serve, tmp_path: Path, option: str, variable: str
) -> None:
    directory = tmp_path / "ca"
    directory.mkdir()
    known = Certificate(directory, "client.example.org")
    path = known.certificate
    if variable == "CADIR":
        known.key = known.key.rename(tmp_path / "client-key.pem")
        path = directory
    session = serve(option, env={variable: str(path)})
    session.start_tls(with_certificate(known))
    assert session.ask("hello") == "got hello"
    assert "SSL_PEER_CERT_SUBJECT=commonName=client.example.org" in session.report
    assert any(line.startswith("SSL_PEER_CERT_HASH=SHA256:") for line in session.report)


def test_a_missing_certificate_is_fatal_only_where_it_is_demanded(
    serve: Serve, certificate: Certificate
) -> None:
    env = {"CAFILE": str(certificate.certificate)}
    with serve("-Y", env=env) as session:
        session.start_tls()
        assert session.ask("hello") == "got hello"
    with serve("-y", env=env) as session:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            session.start_tls()  # TLS 1.3 tells the client only when it reads
            session.ask("hello")
        session.end()
        assert "peer did not return a certificate" in session.log


def test_an_unknown_authority_is_refused(
    serve: Serve, certificate: Certificate, tmp_path: Path
) -> None:
    stranger = Certificate(tmp_path, "stranger", "stranger")
    with serve("-Y", env={"CAFILE": str(certificate.certificate)}) as session:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            session.start_tls(with_certificate(stranger))
            session.ask("hello")
        session.end()
        assert "certificate verify failed" in session.log


# The end of the session.


def goodbye_of(session: Session) -> str:
    """What the client reads at the program's end: a proper close_notify or a bare end."""
    try:
        session.rest()
    except ssl.SSLEOFError:
        return "end of file"
    return "close_notify"


@pytest.mark.parametrize(
    ("options", "goodbye"),
    [([], "close_notify"), (["-S"], "close_notify"), (["-s"], "end of file")],
)
def test_the_programs_end_of_file_is_passed_on(
    serve: Serve, options: list[str], goodbye: str
) -> None:
    session = serve(*options)
    session.start_tls()
    session.say("eof")
    assert goodbye_of(session) == goodbye


def test_a_program_that_stops_speaking_still_hears(serve: Serve) -> None:
    session = serve()
    session.start_tls()
    session.say("eof")
    assert goodbye_of(session) == "close_notify"
    session.sock.sendall(b"still here\n" * 10_000)
    assert session.end() == 0
    assert (session.directory / "report.rest").read_bytes() == b"still here\n" * 10_000


def test_s_breaks_the_connection(serve: Serve) -> None:
    session = serve("-S")
    session.start_tls()
    session.say("eof")
    goodbye_of(session)
    assert session.process.wait(PATIENCE) == 0  # though this side has not closed


@pytest.mark.parametrize(("options", "said"), [(["-J"], True), (["-j"], False), ([], False)])
def test_an_end_without_close_notify_can_be_an_error(
    serve: Serve, options: list[str], said: bool
) -> None:
    session = serve(*options)
    session.start_tls()
    session.ask("hello")
    assert session.end() == 0  # closes TCP, says nothing
    assert session.report[-1] == "end"  # an end of file to the program in any case
    if said:
        deadline_log(session, "the client closed without close_notify")
    else:
        assert "close_notify" not in session.log


def deadline_log(session: Session, text: str) -> None:
    from .conftest import wait_until

    wait_until(lambda: text in session.log, text)


def test_a_program_that_never_asks_leaves_no_engine(serve: Serve) -> None:
    session = serve()
    session.close()
    assert session.process.wait(PATIENCE) in (0, 1)


# The command line.


def test_options() -> None:
    options = parse(["-SJyZ", "-v", "2", "-K", "1500", "-k", "1", "prog", "-S"])
    assert options.program == ["prog", "-S"]
    assert options.closing is Closing.NOTIFY_AND_END
    assert options.strict_end
    assert options.client_certificate is ClientCertificate.REQUIRED
    assert options.keep_environment
    assert (options.verbosity, options.handshake_seconds, options.sni_level) == (2, 1.5, 1)


def test_the_last_of_two_opposites_holds() -> None:
    options = parse(["-S", "-s", "-J", "-j", "-y", "-Y", "-Z", "-z", "prog"])
    assert options.closing is Closing.HALF_CLOSE
    assert not options.strict_end
    assert options.client_certificate is ClientCertificate.OPTIONAL
    assert not options.keep_environment


@pytest.mark.parametrize("words", [[], ["-S"], ["-x", "prog"], ["-v", "x", "prog"], ["-K"]])
def test_misuse(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(words)
