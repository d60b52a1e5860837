"""The listening socket: one address, or all of both families at once."""

import socket

ANY = ("0", "::", "*")


class ListenError(Exception):
    """The address cannot be listened on; the text says why."""


def listen(host: str, port: str, backlog: int) -> socket.socket:
    """Return a non-blocking listening socket.

    Accepted sockets inherit TCP_NODELAY from it (Linux): a reply is never held back to
    wait for the client's delayed acknowledgement of the one before.

    Args:
        host: an address, a name, or ``0`` or ``::`` for every address, IPv6 and IPv4.
        port: a number, ``0`` for any free one, or a service's name.
        backlog: connections the kernel keeps waiting.

    Raises:
        ListenError: no such address or port, in use, or not permitted.
    """
    if host in ANY:
        try:
            return _bound(socket.AF_INET6, ("::", _port(port)), backlog)
        except OSError as error:
            if not _is_without_ipv6(error):
                raise ListenError(f"{host} port {port}: {error.strerror}") from error
        host = "0.0.0.0"
    try:
        found = socket.getaddrinfo(host, _port(port), type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        return _bound(socket.AddressFamily(family), address, backlog)
    except OSError as error:
        raise ListenError(f"{host} port {port}: {error.strerror}") from error


def adopt(descriptor: int) -> socket.socket:
    """Return the listening socket that descriptor is.

    Raises:
        OSError: it is not a socket, or not listening.
    """
    listener = socket.socket(fileno=descriptor)
    if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()
        raise OSError(0, "not a listening socket")
    listener.setblocking(False)
    return listener


def _bound(family: int, address: tuple[object, ...], backlog: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address[0] != "::")
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _is_without_ipv6(error: OSError) -> bool:
    import errno

    return error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


def _port(port: str) -> int:
    if port.isascii() and port.isdigit():
        if int(port) > 65535:
            raise ListenError(f"port {port}: out of range")
        return int(port)
    try:
        return socket.getservbyname(port, "tcp")
    except OSError as error:
        raise ListenError(f"port {port}: unknown service") from error
