"""One connection, in its own process: from the fork to the end of the chain."""

import os

# The functions of the signal module proper wrap these, and turn every number into an
# enumeration's member and back: as many pages to copy as all the rest of a connection.
from _signal import set_wakeup_fd  # type: ignore[import-not-found]
from _signal import signal as set_handler
from signal import SIGHUP, SIGINT, SIGTERM
from typing import NoReturn

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
_RESTORED = (int(SIGTERM), int(SIGHUP), int(SIGINT))
_DEFAULT = 0  # SIG_DFL

_DESCRIPTOR_LIMIT = os.sysconf("SC_OPEN_MAX")


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


def serve(connection: int, env: dict[str, str], channel: int | None, options: Options) -> NoReturn:
    """Be the process of one connection: run the chain and exit with its status.

    Args:
        connection: it becomes descriptors 0 and 1.
        env: see `environment`.
        channel: the way to the TLS zygote.
        options: the server's command line.
    """
    status = EXIT_FAILED
    try:
        _come_clean(connection, channel)
        if options.uid is not None and options.gid is not None:
            become(options.uid, options.gid)  # from here on not root
        if options.proxies and any(env["TCPREMOTEIP"] in network for network in options.proxies):
            _learn_client(env)
            if options.verbose and "PROXYREMOTEIP" in env:
                log.event(env, f"{NAME}: {options.port} by way of {env['PROXYREMOTEIP']}")
        if options.offer_tls or options.implicit_tls:
            _promise_tls(env, channel)
            if options.implicit_tls:
                ucspitls.start(env)
        status = chain.run(options.program, env)
    except ucspitls.HandshakeError:
        status = 1  # the engine has said why
    except (IdentityError, proxy.ProxyError) as error:
        log.event(env, f"{NAME}: {error}")
    except BaseException as error:
        log.event(env, f"{NAME}: {type(error).__name__}: {error}")
    finally:
        os._exit(status & 255)


def _come_clean(connection: int, channel: int | None) -> None:
    """Drop what is the server's: signal handlers, process group, and all its descriptors.

    Of those only standard error is left, and the way to the TLS zygote.
    """
    set_wakeup_fd(-1)
    for number in _RESTORED:
        set_handler(number, _DEFAULT)
    os.setpgid(0, 0)  # so that the server can end all that comes of this process
    os.dup2(connection, 0)
    os.dup2(connection, 1)
    if channel is None:
        os.closerange(3, _DESCRIPTOR_LIMIT)
    else:
        os.closerange(3, channel)
        os.closerange(channel + 1, _DESCRIPTOR_LIMIT)


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
