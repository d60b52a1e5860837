"""authup: the process P, from its command line to its exit status."""

import os
import signal
import time
from typing import NamedTuple

from acceptutils import identity, ucspitls
from acceptutils.authup import client, record, replies
from acceptutils.authup.attempt import Broker, judge
from acceptutils.authup.client import Client, ClientGone, ClientTimeout, Limits
from acceptutils.authup.credentials import Credentials
from acceptutils.authup.dialogue import Dialogue, Effect, Settings
from acceptutils.authup.lines import LineReader, LineTooLong
from acceptutils.authup.pop3 import Pop3
from acceptutils.authup.replies import Failure, Fatal
from acceptutils.authup.smtp import Smtp
from ucspi import control, log

USAGE = "authup: usage: authup [ -t tries ] <smtp|pop3> prog"
EXIT_FAILED = 1

PROTOCOLS: dict[str, type[Dialogue]] = {"smtp": Smtp, "pop3": Pop3}

DEFAULT_TIMEOUT = 1200  # seconds: timeoutsmtpd, timeoutpop3d
GREETING_LIMIT = 500  # bytes: one SMTP reply line (RFC 5321, 4.5.3.1.5)
PARSER_USER = "authup"  # whom P becomes when AUTHUP_UID and AUTHUP_GID do not say
BATCH = 4096  # bytes of replies to pipelined commands that are written together


class Options(NamedTuple):
    """The command line."""

    protocol: type[Dialogue]
    tries: int
    command: list[str]


class UsageError(Exception):
    """The command line is not one of ours."""


def parse_arguments(arguments: list[str]) -> Options:
    """Return the options that follow the program's name; ``-t 0`` is no ``-t``.

    Raises:
        UsageError: not ``[ -t tries ] <smtp|pop3> prog [ args ... ]``.
    """
    words = list(arguments)
    tries = 0
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option == "--":
            break
        value = option[2:] or (words.pop(0) if words else "")
        if option[:2] != "-t" or not (value.isascii() and value.isdigit() and len(value) < 10):
            raise UsageError
        tries = int(value)
    if len(words) < 2 or words[0].lower() not in PROTOCOLS:
        raise UsageError
    protocol = PROTOCOLS[words[0].lower()]
    return Options(protocol, tries or protocol.default_tries, words[1:])


def read_settings(name: str, env: dict[str, str]) -> tuple[Settings, Limits]:
    """Read what control files and the environment say about one protocol.

    Takes UCSPITLS and DISABLETLS out of env.

    Raises:
        ControlError: a file or variable is missing or makes no sense.
    """
    availability = ucspitls.take_availability(env)
    greeting = control.read_line(f"{name}greeting", or_me=True)
    if not greeting or len(greeting) > GREETING_LIMIT:
        raise control.ControlError(f"no usable line in control/{name}greeting or control/me")
    capabilities = control.read_lines(f"{name}capabilities")
    if capabilities is None:
        raise control.ControlError(f"control/{name}capabilities does not exist")
    limits = Limits(
        control.read_number(f"timeout{name}d", DEFAULT_TIMEOUT),
        _seconds(env, "AUTHUP_LINE_SECONDS", client.LINE_SECONDS),
        _seconds(env, "AUTHUP_PREAUTH_SECONDS", client.PREAUTH_SECONDS),
    )
    broken_clients = "AUTHUP_SASL_BROKEN_CLIENTS" in env
    return Settings(greeting, tuple(capabilities), broken_clients, availability), limits


def rehearse(argv: list[str], env: dict[str, str]) -> None:
    """Have a client log in that is none; see ucspi.rehearsal."""
    from acceptutils.authup import rehearsal  # which needs this module

    rehearsal.rehearse(parse_arguments(argv[1:]), env)


def _seconds(env: dict[str, str], name: str, default: int) -> int:
    value = env.get(name, str(default))
    if not (value.isascii() and value.isdigit() and 0 < len(value) < 10 and int(value)):
        raise control.ControlError(f"{name} is not a number of seconds: {value[:20]!r}")
    return int(value)


def parser_ids(env: dict[str, str]) -> tuple[int, int] | None:
    """Return uid and gid for P: AUTHUP_UID and AUTHUP_GID, else the user authup's.

    Raises:
        ControlError: a variable is set and is no unprivileged id.
    """
    if "AUTHUP_UID" in env:
        try:
            return identity.number(env["AUTHUP_UID"]), identity.number(env.get("AUTHUP_GID", ""))
        except ValueError as error:
            raise control.ControlError(f"AUTHUP_UID, AUTHUP_GID: {error}") from error
    import pwd

    try:
        entry = pwd.getpwnam(PARSER_USER)
    except KeyError:
        return None
    return entry.pw_uid, entry.pw_gid


def main(argv: list[str], env: dict[str, str]) -> int:
    """Speak with the client until it is authenticated or gone; see the package.

    Environment read: QMAIL_HOME, UCSPITLS, DISABLETLS, AUTHUP_SASL_BROKEN_CLIENTS,
    AUTHUP_UID, AUTHUP_GID, AUTHUP_LINE_SECONDS, AUTHUP_PREAUTH_SECONDS, AUTHGUARD_SOCKET,
    CHECKPASSWORD_SERVICE, TCPREMOTEIP, SESSION_ID.
    """
    try:
        options = parse_arguments(argv[1:])
    except UsageError:
        log.event(env, USAGE)
        return EXIT_FAILED
    # Ignored by whoever started us, it would have the kernel throw away the status.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.getpid()
    log.event(env, f"authup {pid} protocol {options.protocol.name}")
    try:
        control.enter_home(env)
        settings, limits = read_settings(options.protocol.name, env)
        ids = parser_ids(env) if os.geteuid() == 0 else None
    except control.ControlError as error:
        log.event(env, f"authup {pid} {error}")
        Client(Limits(1)).last_words(options.protocol.failure(replies.CONTROL))
        return EXIT_FAILED
    dialogue = options.protocol(settings, b"%d.%d" % (pid, int(time.time())))
    connection = Connection(dialogue, Client(limits), env, options.tries)
    return connection.run(options.command, ids)


class Connection:
    """One client's connection: moves bytes between the client, a dialogue, the broker."""

    def __init__(self, dialogue: Dialogue, client: Client, env: dict[str, str], tries: int) -> None:
        self._dialogue = dialogue
        self._client = client
        self._env = env
        self._tries = tries
        self._reader = LineReader()
        self._variables: dict[str, str] = {}  # what the TLS engine said
        self._broker: Broker | None = None
        self._worker = 0  # the process that runs checkpassword

    def run(self, command: list[str], ids: tuple[int, int] | None) -> int:
        """Return the exit status of the connection.

        Args:
            command: checkpassword and what follows it.
            ids: uid and gid to become once the broker is forked; None: stay.
        """
        try:
            self._broker = Broker.start(command, self._env, self._tries)
            self._leave_root(ids)
            return self.converse(self._broker)
        except Fatal as fatal:
            return self._end(fatal.failure)
        except ClientTimeout:
            return self._end(replies.TIMEOUT)
        except ClientGone:
            self._log("client gone")
            return EXIT_FAILED
        except MemoryError:
            return self._end(replies.NO_MEMORY)
        except Exception as error:
            self._log(f"{type(error).__name__}: {error}")
            return self._end(replies.CRASH)
        finally:
            if self._broker:
                self._broker.close()

    def _leave_root(self, ids: tuple[int, int] | None) -> None:
        """Become the unprivileged parser: not a byte of the client's is read before."""
        if ids:
            identity.become(*ids)
        elif os.geteuid() == 0:
            self._log(f"stays root: AUTHUP_UID is not set and there is no user {PARSER_USER}")
        assert self._broker
        if not self._dialogue.may_start_tls:
            ucspitls.discard(self._env)
        if ucspitls.provider is None:  # else it has descriptors that only it knows
            kept = {self._broker.fileno()}
            kept.update(
                int(self._env[name])
                for name in ucspitls.DESCRIPTOR_VARIABLES
                if self._env.get(name, "").isdecimal()
            )
            close_all_but(kept)

    def converse(self, broker: Broker) -> int:
        """Speak with the client until it leaves or an attempt succeeds; return the status.

        Raises:
            Fatal, ClientTimeout, ClientGone: the connection ends otherwise.
        """
        self._broker = broker
        self._client.write(self._dialogue.greet())
        replies_due = bytearray()
        while True:
            try:
                line = self._reader.take(self._dialogue.line_limit)
            except LineTooLong:
                self._log("line too long")
                self._client.write(replies_due + self._dialogue.too_long)
                self._client.see_off()
                return EXIT_FAILED
            if line is None:
                self._client.write(replies_due)
                replies_due.clear()
                self._read()
                continue
            self._client.line_ended()
            turn = self._dialogue.answer(line)
            replies_due += turn.reply
            if turn.effect is Effect.NONE and len(replies_due) < BATCH:
                continue
            self._client.write(replies_due)
            replies_due.clear()
            if turn.effect is Effect.QUIT:
                return 0
            if turn.effect is Effect.START_TLS:
                self._start_tls()
            elif turn.credentials and (status := self._attempt(turn.credentials)) is not None:
                # What the client sent behind its AUTH or PASS and is in our buffer, it
                # sent too early (RFC 4954, 4: AUTH ends a group of pipelined commands;
                # POP3 without PIPELINING has no groups): the session never sees it.
                return status

    def _read(self) -> None:
        self._client.line_begun(len(self._reader) > 0)
        try:
            data = self._client.read()
        except OSError as error:
            raise Fatal(replies.READ) from error
        if not data:
            raise Fatal(replies.PROTOCOL)
        self._reader.feed(data)

    def _start_tls(self) -> None:
        # Nothing from before may survive: not the rest of the packet that held STARTTLS,
        # nor a user name (CVE-2011-0411 and its many relatives).
        self._reader.forget()
        self._dialogue.tls_started()
        before = dict(self._env)
        try:
            ucspitls.start(self._env, self._client.seconds_left())
        except ucspitls.HandshakeError as error:
            self._log(str(error))
            raise Fatal(replies.STARTTLS) from error
        ucspitls.discard(self._env)
        self._variables = {
            name: value
            for name, value in self._env.items()
            if before.get(name) != value and ucspitls.is_tls_variable(name)
        }
        self._log("negotiated TLS")

    def _attempt(self, credentials: Credentials) -> int | None:
        """Return the session's exit status, None when the client may try again."""
        assert self._broker
        self._tries -= 1
        self._worker = 0

        def started(pid: int) -> None:
            self._worker = pid
            user = credentials.user.decode("utf-8", "surrogateescape")
            self._log(f"checkpassword {pid} attempt for {user}")

        ended = self._broker.attempt(record.Request(credentials, self._variables), started)
        outcome = judge(ended)
        if isinstance(outcome, int):
            self._log(f"checkpassword {self._worker} succeeded, child completed")
            return outcome
        if outcome is not replies.BAD_AUTH:
            raise Fatal(outcome)
        self._log(f"checkpassword {self._worker} failed, {self._tries} remaining")
        if self._tries <= 0 or self._broker.gone:
            raise Fatal(outcome)
        self._client.write(self._dialogue.failure(outcome))
        return None

    def _end(self, failure: Failure) -> int:
        if failure not in (replies.BAD_AUTH, replies.STARTTLS):  # else it has been said better
            self._log(failure.words.decode("ascii"))
        self._client.last_words(self._dialogue.failure(failure))
        return EXIT_FAILED

    def _log(self, text: str) -> None:
        log.event(self._env, f"authup {os.getpid()} {text}")


def close_all_but(kept: set[int]) -> None:
    """Close every descriptor but 0, 1, 2 and those kept."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > 2 and descriptor not in kept:
            try:
                os.close(descriptor)
            except OSError:  # the listing's own
                pass
