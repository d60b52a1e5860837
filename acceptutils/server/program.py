"""acceptserver: the command."""

import os
import resource

from acceptutils import ucspitls
from acceptutils.server import connection, handover, listener
from acceptutils.server.connection import NAME
from acceptutils.server.generations import Generations
from acceptutils.server.master import Master
from acceptutils.server.options import USAGE, Options, UsageError, parse
from acceptutils.tls import settings as tls_settings
from ucspi import chain, immortal, log, rehearsal

SPARE_DESCRIPTORS = 64  # for all that is not a connection

EXIT_USAGE = 100
EXIT_TEMPORARY = 111


def main(argv: list[str], env: dict[str, str]) -> int:
    """Listen and serve until SIGTERM.

    Returns:
        0 after SIGTERM; 100 on misuse; 111 when the address, a certificate or a
        privilege cannot be had.
    """
    original = dict(env)
    _ensure_standard_descriptors()
    try:
        options = parse(argv[1:])
        previous = handover.take(env)
        tls = _tls_settings(options, env)
    except (UsageError, tls_settings.SettingsError, handover.HandoverError) as error:
        log.event({}, f"{NAME}: {error}" + (f"; {USAGE}" if isinstance(error, UsageError) else ""))
        return EXIT_USAGE
    _raise_descriptor_limit(options.limits.total)
    try:
        if previous is None:
            listening = listener.listen(options.host, options.port, options.backlog)
        else:
            listening = listener.adopt(previous.listener)
    except (listener.ListenError, OSError) as error:
        log.event({}, f"{NAME}: unable to listen: {error}")
        return EXIT_TEMPORARY
    generations = None
    if tls is not None:
        generations = Generations(tls, NAME, lambda text: log.event({}, f"{NAME}: {text}"))
    master = Master(options, argv, original, listening, generations)
    if previous is not None:
        master.resume(previous)
    # The zygote is forked first: what it does not hold, its engines need not copy.
    if generations is not None:
        trouble = generations.start_first()
        if trouble is not None:
            kept = "; the certificate in use stays" if generations.current is not None else ""
            log.event({}, f"{NAME}: TLS: {trouble}{kept}")
            if not kept:
                return EXIT_TEMPORARY
    chain.load(options.program, env)
    _rehearse(options, env)
    immortal.freeze(immortal.open_memory())
    return master.run()


def _rehearse(options: Options, env: dict[str, str]) -> None:
    """Let what connections are about to run be run here first; see ucspi.rehearsal."""
    try:
        for _ in range(rehearsal.ROUNDS):
            nobodys = connection.rehearse(options, env)
        rehearsal.run(options.program, nobodys)
    except (OSError, ucspitls.HandshakeError) as error:
        log.event({}, f"{NAME}: rehearsal: {error}")


def _ensure_standard_descriptors() -> None:
    """Open what a careless parent left closed: a socket must never become descriptor 2."""
    while (descriptor := os.open("/dev/null", os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _raise_descriptor_limit(connections: int) -> None:
    """Make room for a pidfd of every connection, as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _tls_settings(options: Options, env: dict[str, str]) -> tls_settings.Settings | None:
    if not (options.offer_tls or options.implicit_tls):
        return None
    level = 1 if tls_settings.has_names(env) else 0
    return tls_settings.from_environment(env, level)._replace(
        handshake_seconds=options.handshake_seconds,
        uses=options.engine_uses or options.uses,
        verbosity=2 if options.tls_facts else 1,
    )
