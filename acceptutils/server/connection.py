"""One connection, in its own process: from the fork to the end of the chain."""

import _socket
import os
import socket

# The functions of the signal module proper wrap these, and turn every number into an
# enumeration's member and back: as many pages to copy as all the rest of a connection.
from _signal import set_wakeup_fd  # type: ignore[import-not-found]
from _signal import signal as set_handler
from collections.abc import Callable
from signal import SIGHUP, SIGINT, SIGTERM
from typing import NoReturn

from acceptutils import ucspitls
from acceptutils.identity import IdentityError
from acceptutils.server import pool, proxy
from acceptutils.server.addresses import plain
from acceptutils.server.options import Options
from acceptutils.server.pool import Task
from acceptutils.tls import request
from acceptutils.tls.privilege import become
from ucspi import chain, log, warm
from ucspi.rehearsal import Stage

NAME = "acceptserver"

EXIT_FAILED = 111

# What the server handles itself, and programs expect to find as it was.
_RESTORED = (int(SIGTERM), int(SIGHUP), int(SIGINT))
_DEFAULT = 0  # SIG_DFL

MakeEnvironment = Callable[[Task], dict[str, str]]


def environment(
    base: dict[str, str],
    client: tuple[str, int],
    local: tuple[str, int],
    session: str,
    options: Options,
) -> dict[str, str]:
    """Return the environment of the chain's first program.

    Args:
        base: the server's own, without what concerns its TLS engines.
        client: the client's address and port.
        local: ours.
        session: an identifier for log lines.
        options: the server's command line.
    """
    env = base.copy()
    env["PROTO"] = "TCP"
    env["TCPREMOTEIP"], env["TCPREMOTEPORT"] = client[0], str(client[1])
    env["TCPLOCALIP"], env["TCPLOCALPORT"] = local[0], str(local[1])
    env["SESSION_ID"] = session
    if options.local_name is not None:
        env["TCPLOCALHOST"] = options.local_name
    if options.offer_tls:
        env.setdefault("UCSPITLS", "")
    elif options.implicit_tls:
        env.pop("UCSPITLS", None)
    return env


def serve(
    task: Task, options: Options, make_env: MakeEnvironment, channel: _socket.socket | None
) -> NoReturn:
    """Be the process of one connection: run the chain and exit with its status.

    Args:
        task: the connection; it becomes descriptors 0 and 1.
        options: the server's command line.
        make_env: makes the chain's environment.
        channel: the way to the server, for a process that may serve more than one.
    """
    status = EXIT_FAILED
    try:
        env = make_env(task)
        if channel is not None:
            channel = warm.lifted(channel)
            warm.uses = options.uses
        _come_clean(task, channel)
        if options.uid is not None and options.gid is not None:
            become(options.uid, options.gid)  # from here on not root
        status = _run(env, task.zygote, options)
        if channel is not None:
            _serve_more(status, options, make_env, channel)
    except BaseException as error:
        status = EXIT_FAILED
        log.event({}, f"{NAME}: {type(error).__name__}: {error}")
    finally:
        os._exit(status & 255)


def _serve_more(
    status: int, options: Options, make_env: MakeEnvironment, channel: _socket.socket
) -> NoReturn:
    """Report a status and serve the next connection, as often as one process may."""
    for _ in range(options.uses - 1):
        warm.tidy()
        chain.close_all_but({0, 1, 2, channel.fileno(), *warm.kept()})
        ucspitls.provider = ucspitls.withdraw = None
        os.chdir("/")
        pool.report(channel, status)
        task = pool.await_task(channel)
        if task is None:
            os._exit(0)
        env = make_env(task)
        os.dup2(task.connection, 0)
        os.dup2(task.connection, 1)
        os.close(task.connection)
        status = _run(env, task.zygote, options)
    os._exit(status & 255)


def _run(env: dict[str, str], zygote: int | None, options: Options) -> int:
    """Run the chain for the connection on descriptors 0 and 1; return its exit status."""
    try:
        if options.proxies and any(env["TCPREMOTEIP"] in network for network in options.proxies):
            _learn_client(env)
            if options.verbose and "PROXYREMOTEIP" in env:
                log.event(env, f"{NAME}: {options.port} by way of {env['PROXYREMOTEIP']}")
        if options.offer_tls or options.implicit_tls:
            _promise_tls(env, zygote)
            if options.implicit_tls:
                ucspitls.start(env)
        return chain.run(options.program, env)
    except ucspitls.HandshakeError:
        return 1  # the engine has said why
    except (IdentityError, proxy.ProxyError) as error:
        log.event(env, f"{NAME}: {error}")
    except BaseException as error:
        log.event(env, f"{NAME}: {type(error).__name__}: {error}")
        os._exit(EXIT_FAILED)  # whatever state it has left behind
    return EXIT_FAILED


def _come_clean(task: Task, channel: _socket.socket | None) -> None:
    """Drop what is the server's: signal handlers, process group, and all its descriptors.

    Of those only standard error is left, the way to the TLS zygote, and that to the server.
    """
    set_wakeup_fd(-1)
    for number in _RESTORED:
        set_handler(number, _DEFAULT)
    os.setpgid(0, 0)  # so that the server can end all that comes of this process
    os.dup2(task.connection, 0)
    os.dup2(task.connection, 1)
    wanted = {0, 1, 2}
    if task.zygote is not None:
        wanted.add(task.zygote)
    if channel is not None:
        wanted.add(channel.fileno())
    chain.close_all_but(wanted)


def rehearse(options: Options, base: dict[str, str]) -> dict[str, str]:
    """Begin a connection of nobody's, see ucspi.rehearsal; return its environment.

    Raises:
        OSError, HandshakeError: it did not work.
    """
    nobody = ("127.0.0.1", 1)
    with Stage(b""):
        env = environment(base, nobody, nobody, "rehearsal", options)
        ours, zygote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        application = request.ask(ours.detach(), env)
        asked = request.receive(zygote)
        zygote.close()
        if asked is not None:
            engine, _ = asked
            os.write(engine.control, b"SSL_PROTOCOL=TLSv1.3\0SSL_CIPHER=rehearsed\0\0")
            ucspitls.provider = lambda: application
            ucspitls.start(env)
            for descriptor in engine:
                os.close(descriptor)
        log.event(env, NAME)
    return env


def _learn_client(env: dict[str, str]) -> None:
    """Replace the proxy's address in env by that of the client behind it."""
    ends = proxy.learn(0)
    if ends is not None:
        env["PROXYREMOTEIP"] = env["TCPREMOTEIP"]
        source, source_port, local, local_port = ends
        env["TCPREMOTEIP"], env["TCPREMOTEPORT"] = plain(source), str(source_port)
        env["TCPLOCALIP"], env["TCPLOCALPORT"] = plain(local), str(local_port)


def _promise_tls(env: dict[str, str], channel: int | None) -> None:
    """Let ucspitls ask the zygote for an engine when, and if, one is wanted."""

    def ask() -> ucspitls.Descriptors:
        ucspitls.withdraw = None
        if channel is None:
            raise OSError(0, "no TLS zygote")
        return request.ask(channel, env)

    ucspitls.provider = ask
    if channel is not None:
        ucspitls.withdraw = lambda: os.close(channel)
