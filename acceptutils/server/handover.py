"""What one image of the server hands to the next when it executes itself anew.

All processes forked from one image share its address layout and hash seed; a new image
has new ones. The process stays the same, so its children stay its own; what
the new image must be told stands in a small file in memory, whose descriptor is in
ACCEPTSERVER_HANDOVER: one line for each thing.

    listener DESCRIPTOR
    zygote PID DESCRIPTOR              (the one that serves)
    zygote PID                         (one of an earlier certificate or image)
    connection PID SESSION HOST        (HOST in hexadecimal; `-` when it is not counted)
"""

import os
from typing import NamedTuple

from acceptutils.server.admission import HostKey

VARIABLE = "ACCEPTSERVER_HANDOVER"


class HandoverError(Exception):
    """The state that an earlier image left does not parse."""


# One connection that is being served: process id, session, address, and the host under which
# it is counted, if it is. A plain tuple: one is made for every connection.
Connection = tuple[int, str, str, HostKey | None]


class State(NamedTuple):
    """All that outlives an image."""

    listener: int
    zygote: tuple[int, int] | None  # process id, channel
    zygotes: list[int]  # process ids of those that only wait for their last connections
    connections: list[Connection]


def render(state: State) -> bytes:
    """Return state as the next image reads it."""
    lines = [f"listener {state.listener}"]
    if state.zygote is not None:
        lines.append("zygote {} {}".format(*state.zygote))
    lines += [f"zygote {pid}" for pid in state.zygotes]
    for pid, session, address, host in state.connections:
        lines.append(f"connection {pid} {session} {address} {_render_host(host)}")
    return "".join(line + "\n" for line in lines).encode("ascii")


def parse(content: bytes) -> State:
    """Return the state that content describes.

    Raises:
        HandoverError: it is not what `render` writes.
    """
    listener: int | None = None
    zygote: tuple[int, int] | None = None
    zygotes: list[int] = []
    connections: list[Connection] = []
    try:
        for line in content.decode("ascii").splitlines():
            match line.split(" "):
                case ["listener", descriptor]:
                    listener = int(descriptor)
                case ["zygote", pid, descriptor]:
                    zygote = (int(pid), int(descriptor))
                case ["zygote", pid]:
                    zygotes.append(int(pid))
                case ["connection", pid, session, address, host]:
                    connections.append((int(pid), session, address, _parse_host(host)))
                case _:
                    raise HandoverError(f"unknown line: {line[:80]}")
    except ValueError as error:
        raise HandoverError(str(error)) from error
    if listener is None:
        raise HandoverError("no listener")
    return State(listener, zygote, zygotes, connections)


def leave(state: State) -> int:
    """Write state where the next image finds it; return the descriptor of that place.

    Every descriptor that state names becomes inheritable.

    Raises:
        OSError: there is no memory or no descriptor for it.
    """
    descriptor = os.memfd_create("acceptserver")
    os.write(descriptor, render(state))
    for kept in _descriptors(state):
        os.set_inheritable(kept, True)
    os.set_inheritable(descriptor, True)
    return descriptor


def keep_private(state: State) -> None:
    """Undo `leave`: no child that is executed gets to see a descriptor of state."""
    for kept in _descriptors(state):
        os.set_inheritable(kept, False)


def take(env: dict[str, str]) -> State | None:
    """Return what an earlier image left, and remove the trace of it; None when none did.

    Raises:
        HandoverError: what it left cannot be used.
    """
    value = env.pop(VARIABLE, None)
    if value is None:
        return None
    try:
        descriptor = int(value)
        size = os.fstat(descriptor).st_size
        content = os.pread(descriptor, size, 0)
        os.close(descriptor)
        state = parse(content)
        keep_private(state)
    except (OSError, ValueError) as error:
        raise HandoverError(str(error)) from error
    return state


def _descriptors(state: State) -> list[int]:
    return [state.listener] if state.zygote is None else [state.listener, state.zygote[1]]


def _render_host(host: HostKey | None) -> str:
    if host is None:
        return "-"
    return host.hex() if isinstance(host, bytes) else host


def _parse_host(text: str) -> HostKey | None:
    if text == "-":
        return None
    return text if "." in text else bytes.fromhex(text)


def next_image(interpreter: list[str], argv: list[str]) -> list[str] | None:
    """Return the command line that starts this program again, by the interpreter's path.

    Args:
        interpreter: the whole command line the interpreter was started with.
        argv: the program's own.

    Returns:
        None when interpreter does not end in argv: another program of the same process came
        first, and must not be run a second time; argv is then to be executed by itself.
    """
    own = interpreter[-len(argv) :]
    # A launcher may have shortened its path to the name.
    is_own = own[1:] == argv[1:] and os.path.basename(own[0]) == os.path.basename(argv[0])
    return interpreter if is_own and len(interpreter) > len(argv) else None
