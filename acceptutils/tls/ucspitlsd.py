"""ucspitlsd: offer TLS to the next program, under any UCSPI server.

The command line and environment are those of s6-ucspitlsd: a child waits for the
program to ask for TLS on the control socket and is then its engine; this process becomes
the program.
"""

import getopt
import os
import signal
from typing import NamedTuple

from acceptutils import ucspitls
from acceptutils.identity import IdentityError
from acceptutils.tls import request, settings
from acceptutils.tls.privilege import give_up_root
from acceptutils.tls.settings import ClientCertificate, Closing
from ucspi import chain, log

USAGE = (
    "usage: ucspitlsd [-S | -s] [-J | -j] [-Y | -y] [-Z | -z] [-v verbosity]"
    " [-K milliseconds] [-k snilevel] prog [args ...]"
)

EXIT_USAGE = 100
EXIT_TEMPORARY = 111


class UsageError(Exception):
    """The command line is wrong."""


class Options(NamedTuple):
    """The command line of ucspitlsd."""

    program: list[str]
    closing: Closing = Closing.NOTIFY
    strict_end: bool = False
    client_certificate: ClientCertificate = ClientCertificate.NONE
    keep_environment: bool = False
    verbosity: int = 1
    handshake_seconds: float | None = None  # None: no limit
    sni_level: int = 0


_FLAGS: dict[str, dict[str, object]] = {
    "-S": {"closing": Closing.NOTIFY_AND_END},
    "-s": {"closing": Closing.HALF_CLOSE},
    "-J": {"strict_end": True},
    "-j": {"strict_end": False},
    "-Y": {"client_certificate": ClientCertificate.OPTIONAL},
    "-y": {"client_certificate": ClientCertificate.REQUIRED},
    "-Z": {"keep_environment": True},
    "-z": {"keep_environment": False},
}


def parse(arguments: list[str]) -> Options:
    """Return the options that arguments, without the program's own name, spell.

    Raises:
        UsageError: an unknown option, a number that is none, or no program.
    """
    try:
        pairs, program = getopt.getopt(arguments, "SsJjYyZzv:K:k:")
    except getopt.GetoptError as error:
        raise UsageError(error.msg) from error
    if not program:
        raise UsageError("no program to run")
    options = Options(program)
    for flag, value in pairs:
        if flag in _FLAGS:
            options = options._replace(**_FLAGS[flag])  # type: ignore[arg-type]
            continue
        if not (value.isascii() and value.isdigit()):
            raise UsageError(f"{flag}: not a number: {value}")
        number = int(value)
        if flag == "-v":
            options = options._replace(verbosity=number)
        elif flag == "-k":
            options = options._replace(sni_level=number)
        else:
            options = options._replace(handshake_seconds=number / 1000 or None)
    return options


def main(argv: list[str], env: dict[str, str]) -> int:
    """Fork the engine, and run the rest of the command line with its three descriptors.

    Returns:
        100 on misuse, 111 when the system refuses; else what the program returns.
    """
    try:
        options = parse(argv[1:])
    except UsageError as error:
        log.event(env, f"ucspitlsd: {error}: {USAGE}")
        return EXIT_USAGE
    try:
        application, ends = request.make_ends()
        pid = os.fork()
    except OSError as error:
        log.event(env, f"ucspitlsd: unable to start: {error.strerror}")
        return EXIT_TEMPORARY
    if pid == 0:
        status = EXIT_TEMPORARY
        try:
            # The program's standard output is ours too; the connection ends with the program.
            os.dup2(2, 1)
            chain.close_all_but({1, 2, *ends})
            status = _engine(options, ends, env)
        except BaseException as error:
            log.event(env, f"ucspitlsd: {type(error).__name__}: {error}")
        finally:
            os._exit(status)
    for descriptor in ends[1:]:
        os.close(descriptor)
    clean = dict(env) if options.keep_environment else settings.without(env)
    for name, descriptor in zip(ucspitls.DESCRIPTOR_VARIABLES, application, strict=True):
        os.set_inheritable(descriptor, True)
        clean[name] = str(descriptor)
    return chain.run(options.program, clean)


def _engine(options: Options, ends: request.Ends, env: dict[str, str]) -> int:
    """Wait for the command; only then load ssl and the key, and leave root behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    command = os.read(ends.control, 1)
    if not command:
        return 0
    from acceptutils.tls import engine
    from acceptutils.tls.context import ContextError, Contexts, keep_remarks_short

    keep_remarks_short("ucspitlsd")
    if command not in engine.COMMANDS:
        log.event(env, "ucspitlsd: unknown command on the control descriptor")
        return engine.MISUSED
    try:
        configured = settings.from_environment(env, options.sni_level)._replace(
            client_certificate=options.client_certificate,
            closing=options.closing,
            strict_end=options.strict_end,
            handshake_seconds=options.handshake_seconds,
            verbosity=options.verbosity,
        )
        contexts = Contexts(configured)
        if os.geteuid() == 0 and configured.uid is None and configured.gid is None:
            log.event(env, "ucspitlsd: TLS_UID and TLS_GID are not set: TLS runs as root")
        else:
            give_up_root(configured.uid, configured.gid)
    except (settings.SettingsError, ContextError, IdentityError) as error:
        log.event(env, f"ucspitlsd: {error}")
        return engine.NOT_CONFIGURED
    return engine.serve(
        ends, contexts, configured, command, lambda text: log.event(env, f"ucspitlsd: {text}")
    )
