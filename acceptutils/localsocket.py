"""Unix sockets of a small daemon: made in place of a stale one, with the kernel's word on peers."""

import os
import socket
import stat
import struct

BACKLOG = 128

_PEER = struct.Struct("iII")  # struct ucred: pid, uid, gid


def listen(path: str, kind: int, mode: int) -> socket.socket:
    """Return a listening, non-blocking socket at path, in place of a stale one.

    Args:
        path: where; the directory must be writable.
        kind: socket.SOCK_SEQPACKET or socket.SOCK_STREAM.
        mode: the permissions; to connect is to write.

    Raises:
        OSError: it cannot be made, or another process serves there.
    """
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    try:
        _remove_stale(path, kind)
        before = os.umask(0o777 & ~mode)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale(path: str, kind: int) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return  # bind will say that the place is taken
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass  # full: somebody is there
        # When somebody is there, bind will say so.


def peer_uid(connection: socket.socket) -> int:
    """Return the uid that the peer had when it connected."""
    ucred = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    uid: int = _PEER.unpack(ucred)[1]
    return uid
