"""One connection, in its own process: from the fork to the end of the chain."""

import os
import signal
import socket
from typing import NamedTuple, NoReturn

from acceptutils import ucspitls
from acceptutils.identity import IdentityError
from acceptutils.server import proxy
from acceptutils.server.addresses import plain
from acceptutils.server.options import Options
from acceptutils.tls import request
from acceptutils.tls.privilege import become
from ucspi import chain, log

NAME = "acceptserver"

EXIT_FAILED = 111

# What the server handles itself, and programs expect to find as it was.
_RESTORED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Client(NamedTuple):
    """Whom this process serves."""

    connection: socket.socket
    address: str
    port: int
    session: str


def environment(
    base: dict[str, str], client: Client, local: tuple[str, int], options: Options
) -> dict[str, str]:
    """Return the environment of the chain's first program.

    Args:
        base: the server's own, without what concerns its TLS engines.
        client: the connection.
        local: our address and port on it.
        options: the server's command line.
    """
    env = base | {
        "PROTO": "TCP",
        "TCPREMOTEIP": client.address,
        "TCPREMOTEPORT": str(client.port),
        "TCPLOCALIP": local[0],
        "TCPLOCALPORT": str(local[1]),
        "SESSION_ID": client.session,
    }
    if options.local_name is not None:
        env["TCPLOCALHOST"] = options.local_name
    if options.offer_tls:
        env.setdefault("UCSPITLS", "")
    elif options.implicit_tls:
        env.pop("UCSPITLS", None)
    return env


def serve(
    client: Client,
    channel: socket.socket | None,
    unwanted: list[int],
    base: dict[str, str],
    options: Options,
) -> NoReturn:
    """Be the process of one connection: run the chain and exit with its status.

    Args:
        client: the connection; it becomes descriptors 0 and 1.
        channel: the way to the TLS zygote.
        unwanted: the server's descriptors; closed before anything else.
        base: see `environment`.
        options: the server's command line.
    """
    status = EXIT_FAILED
    env = {"TCPREMOTEIP": client.address, "SESSION_ID": client.session}
    try:
        _come_clean(unwanted)
        env = environment(base, client, _local(client.connection), options)
        _take_descriptors(client.connection)
        if options.uid is not None and options.gid is not None:
            become(options.uid, options.gid)  # from here on not root
        if options.proxies and any(client.address in network for network in options.proxies):
            _learn_client(env)
        status = _run(env, channel, options)
    except ucspitls.HandshakeError:
        status = 1  # the engine has said why
    except (IdentityError, proxy.ProxyError) as error:
        log.event(env, f"{NAME}: {error}")
    except BaseException as error:
        log.event(env, f"{NAME}: {type(error).__name__}: {error}")
    finally:
        os._exit(status & 255)


def _come_clean(unwanted: list[int]) -> None:
    """Drop what is the server's: descriptors, signal handlers, process group."""
    signal.set_wakeup_fd(-1)
    for descriptor in unwanted:
        os.close(descriptor)
    for number in _RESTORED:
        signal.signal(number, signal.SIG_DFL)
    os.setpgid(0, 0)  # so that the server can end all that comes of this process


def _local(connection: socket.socket) -> tuple[str, int]:
    address = connection.getsockname()
    return plain(address[0]), address[1]


def _take_descriptors(connection: socket.socket) -> None:
    number = connection.detach()
    os.dup2(number, 0)
    os.dup2(number, 1)
    if number > 1:
        os.close(number)


def _learn_client(env: dict[str, str]) -> None:
    """Replace the proxy's address in env by that of the client behind it."""
    ends = proxy.read(0).ends
    if ends is not None:
        env["PROXYREMOTEIP"] = env["TCPREMOTEIP"]
        source, source_port, local, local_port = ends
        env["TCPREMOTEIP"], env["TCPREMOTEPORT"] = plain(source), str(source_port)
        env["TCPLOCALIP"], env["TCPLOCALPORT"] = plain(local), str(local_port)


def _run(env: dict[str, str], channel: socket.socket | None, options: Options) -> int:
    if options.offer_tls or options.implicit_tls:
        _promise_tls(env, channel)
    if options.implicit_tls:
        ucspitls.start(env)
    return chain.run(options.program, env)


def _promise_tls(env: dict[str, str], channel: socket.socket | None) -> None:
    """Let ucspitls ask the zygote for an engine when, and if, one is wanted."""

    def ask() -> ucspitls.Descriptors:
        if channel is None:
            raise OSError(0, "no TLS zygote")
        return request.ask(channel, env)

    ucspitls.provider = ask
    if channel is not None:
        ucspitls.withdraw = channel.close
