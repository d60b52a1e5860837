"""fixsmtpio prog [ args ... ]: see docs/man/fixsmtpio.8."""

import os
import signal
from typing import NamedTuple

from acceptutils import ucspitls
from acceptutils.fixsmtpio import answers, settings
from acceptutils.fixsmtpio.client import Client
from acceptutils.fixsmtpio.embedded import Embedded, EmbeddedProxy
from acceptutils.fixsmtpio.proxy import Ended, Proxy
from acceptutils.fixsmtpio.rules import RuleError
from acceptutils.fixsmtpio.server import PipedProxy, Server
from acceptutils.fixsmtpio.session import Context, Log, Session
from acceptutils.ucspitls import Availability
from ucspi import chain, control, dialogue, log
from ucspi.rehearsal import Stage

EXIT_NO_TLS = 1  # STARTTLS was asked for and did not work: the connection is of no use
EXIT_CONTROLS = 18  # authup knows it, and tells the client
EXIT_USAGE = 100
EXIT_TEMPORARY = 111

NAME = "fixsmtpio"

WORDS = (
    b"EHLO localhost\r\nMAIL FROM:<rehearsal@localhost>\r\nRCPT TO:<rehearsal@localhost>\r\n"
    b"RSET\r\nQUIT\r\n"
)


def preload(argv: list[str], env: dict[str, str]) -> None:
    """Read the control files before processes are forked for connections.

    Nothing is wrong yet when they cannot be read: each connection looks again.
    """
    here = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        control.enter_home(env)
        settings.load(env)
    except (control.ControlError, RuleError):
        pass
    finally:
        os.fchdir(here)
        os.close(here)


def rehearse(argv: list[str], env: dict[str, str]) -> None:
    """Serve a client that is none, up to where a message would begin; see ucspi.rehearsal."""
    if dialogue.is_held(argv[1:]):  # only a server of our own knows that it is a rehearsal
        env.pop("UCSPITLS", None)  # that client cannot start TLS
        with Stage(WORDS):
            main(argv, env)


def main(argv: list[str], env: dict[str, str]) -> int:
    """Serve descriptors 0 and 1 by running argv[1:] behind the rules of control/fixsmtpio.

    Returns:
        The exit code of the last rule that had one and applied; else the server's status.
        18: the control files cannot be read or parsed. 1: TLS did not start. 100: misuse,
        or a server that had to be ended by force. 111: no process or no pipe. When the
        server was killed by a signal, this process kills itself with the same one.
    """
    if len(argv) < 2:
        log.event(env, f"{NAME}: usage: {NAME} prog [ args ... ]")
        return EXIT_USAGE
    if "NOFIXSMTPIO" in env:
        return chain.run(argv[1:], env)
    try:
        control.enter_home(env)
        return _Connection(argv[1:], env).serve()
    except RuleError as error:
        return _without_controls(env, f"unable to parse control/{NAME}: {error}")
    except control.ControlError as error:
        return _without_controls(env, str(error))
    except OSError as error:
        log.event(env, f"{NAME} {os.getpid()} {error}")
        return EXIT_TEMPORARY


def _without_controls(env: dict[str, str], why: str) -> int:
    log.event(env, f"{NAME}: {why}")
    if "AUTHUP_USER" not in env:  # else authup tells the client, from our status
        try:
            os.write(1, answers.CONTROLS_UNREADABLE)
        except OSError:
            pass
    return EXIT_CONTROLS


class _Served(NamedTuple):
    """How one server, and the session with it, came to its end."""

    session: Session
    status: int  # negative: the signal that it died of


class _Connection:
    """One client, with one server after the other: a new one when TLS has started."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self._argv = argv
        self._env = env
        self._availability = ucspitls.take_availability(env)

    def serve(self) -> int:
        """Serve the client to the end and return the exit status."""
        # The server first: what this process touches before the fork it has to copy twice,
        # and the server starts while the rules are looked at.
        server = self._start()
        try:
            loaded = settings.load(self._env)
        except (control.ControlError, RuleError):
            server.end(at_once=True)
            raise
        served = self._serve(server, loaded, in_tls=False)
        if served.session.outcome and served.session.outcome.start_tls:
            try:
                ucspitls.start(self._env)
            except ucspitls.HandshakeError as error:
                self._event(f"unable to start TLS: {error}")
                return EXIT_NO_TLS
            self._event("negotiated TLS")
            self._env["FIXSMTPIOTLS"] = "1"
            served = self._serve(self._start(), loaded, in_tls=True)
        outcome = served.session.outcome
        if outcome and outcome.exitcode is not None:
            return outcome.exitcode
        if served.status < 0:
            self._event(f"{self._argv[0]} crashed: signal {-served.status}")
            return _die_of(-served.status)
        return served.status

    def _start(self) -> Server | Embedded:
        """Start the server: in this process when it is of those that can be held in it."""
        held = dialogue.of(self._argv, env := dict(self._env))
        return Server(self._argv, self._env) if held is None else Embedded(held, env)

    def _serve(self, server: Server | Embedded, loaded: settings.Settings, in_tls: bool) -> _Served:
        context = Context(
            greeting=loaded.greeting,
            tls_available=self._availability is not Availability.UNAVAILABLE,
            tls_required=self._availability is Availability.REQUIRED,
            in_tls=in_tls,
            restarted=in_tls,
            authenticated="AUTHUP_USER" in self._env,
            bare_lf="FIXSMTPIO_BARELF" in self._env,
        )
        session = Session(loaded.rules.select(self._env), context, self._debug_log(server))
        client = Client()
        try:
            proxy: Proxy
            if isinstance(server, Embedded):
                proxy = EmbeddedProxy(session, client, server, loaded.timeout)
            else:
                proxy = PipedProxy(session, client, server, loaded.timeout)
            ended = proxy.run()
            starting_tls = bool(session.outcome and session.outcome.start_tls)
            status = server.end(at_once=starting_tls)
            reported = status < 0 or status == EXIT_TEMPORARY
            if ended is Ended.SERVER_GONE and (text := session.farewell(reported)):
                proxy.say(text)
            if session.client_sends_on:
                client.linger()
        finally:
            client.release()
        for note in session.notes:
            self._event(note)
        return _Served(session, status)

    def _debug_log(self, server: Server | Embedded) -> Log | None:
        if "FIXSMTPIODEBUG" not in self._env:
            return None
        program = os.path.basename(self._argv[0])
        stamp = f"{NAME} {os.getpid()} {program} {server.pid} "
        return lambda mark, line: log.event(self._env, f"{stamp}{mark}: {log.printable(line)}")

    def _event(self, text: str) -> None:
        log.event(self._env, f"{NAME} {os.getpid()} {text}")


def _die_of(number: int) -> int:
    """End this process as its child ended, so that authup sees a crash and says so."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return EXIT_TEMPORARY  # the signal is blocked
