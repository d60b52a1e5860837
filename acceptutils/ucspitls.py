"""UCSPI-TLS, the application's side: ask for TLS, and go on inside it.

The interface (Scott Gifford's UCSPI-TLS, s6-ucspitlsd): write ``Y`` to the descriptor
in SSLCTLFD, then read the client from SSLREADFD and write to SSLWRITEFD, and read
``NAME=value\\0`` records, ended by an empty one, from SSLCTLFD.

Under our own acceptserver the three descriptors are made only when they are needed:
`provider` is then a function that makes them. It is asked either by `start`, or by
`materialise` just before a foreign program is executed.
"""

import os
import select
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import NamedTuple

from ucspi import chain

BLOB_LIMIT = 65536  # bytes; a certificate chain's worth, far above what an engine sends

DESCRIPTOR_VARIABLES = ("SSLCTLFD", "SSLREADFD", "SSLWRITEFD")

# OpenSSL reads these two as the places of trusted certificates: a checkpassword that
# asks a directory over TLS would believe whoever had set them.
REFUSED_VARIABLES = frozenset({"SSL_CERT_FILE", "SSL_CERT_DIR"})


class Descriptors(NamedTuple):
    """The three descriptors of UCSPI-TLS, in this process."""

    control: int
    read: int
    write: int


# Set by a server that makes the descriptors on demand; raises OSError when it cannot.
provider: Callable[[], Descriptors] | None = None

# Set by such a server, too: gives up the means to make them.
withdraw: Callable[[], None] | None = None


class Availability(Enum):
    """Whether this connection may, must or cannot start TLS."""

    UNAVAILABLE = auto()
    OPTIONAL = auto()
    REQUIRED = auto()


class HandshakeError(Exception):
    """TLS did not start; the connection is of no further use."""


def take_availability(env: dict[str, str]) -> Availability:
    """Read UCSPITLS and DISABLETLS and remove both from env.

    UCSPITLS unset or ``-``: unavailable; ``!``: required; anything else, also empty:
    optional. DISABLETLS set: unavailable.
    """
    offered = env.pop("UCSPITLS", "-")
    disabled = env.pop("DISABLETLS", None)
    if offered == "-" or disabled is not None:
        return Availability.UNAVAILABLE
    return Availability.REQUIRED if offered == "!" else Availability.OPTIONAL


def is_tls_variable(name: str) -> bool:
    """Whether a TLS engine may set a variable of this name."""
    return (
        name.startswith("SSL_")
        and name.isascii()
        and name[4:].replace("_", "").isalnum()
        and name == name.upper()
        and name not in REFUSED_VARIABLES
    )


def parse_blob(blob: bytes) -> list[tuple[str, str]] | None:
    """Return the variables of a complete blob, None when more bytes are to come.

    An engine reads what strangers send, and is less than who asks it (root, where TLS comes
    with the connection): a variable that is not about TLS is dropped, whatever the engine
    has become. So is a record without ``=``. The blob is complete at its first empty record.

    Raises:
        HandshakeError: the blob is longer than any engine's.
    """
    if blob.startswith(b"\0"):
        return []
    end = blob.find(b"\0\0")
    if end < 0:
        if len(blob) > BLOB_LIMIT:
            raise HandshakeError("TLS variables without an end")
        return None
    variables = []
    for record in blob[:end].split(b"\0"):
        name, equals, value = record.partition(b"=")
        if equals and is_tls_variable(os.fsdecode(name)):
            variables.append((os.fsdecode(name), os.fsdecode(value)))
    return variables


def materialise(env: dict[str, str]) -> None:
    """Make the promised descriptors real, inheritable and named in env, before an exec."""
    global provider
    if provider is None or "UCSPITLS" not in env:
        return
    make, provider = provider, None
    try:
        made = make()
    except OSError:
        # The program runs on without TLS, and says so when it is asked to start it.
        env["UCSPITLS"] = "-"
        return
    for name, descriptor in zip(DESCRIPTOR_VARIABLES, made, strict=True):
        os.set_inheritable(descriptor, True)
        env[name] = str(descriptor)


chain.before_execute.append(materialise)


def discard(env: dict[str, str]) -> None:
    """Give up the promise of TLS: nothing after this may start it, or needs to."""
    global provider, withdraw
    if withdraw is not None:
        withdraw()
    provider = withdraw = None
    for name in DESCRIPTOR_VARIABLES:
        value = env.pop(name, "")
        if value.isdigit():
            try:
                os.close(int(value))
            except OSError:
                pass


def start(env: dict[str, str], seconds: float | None = None) -> None:
    """Start TLS: descriptors 0 and 1 become the plaintext side, env gains the variables.

    The caller must have forgotten everything it learned from the client so far.

    Args:
        env: where the variables go.
        seconds: how long the handshake may take; None leaves that to the engine.

    Raises:
        HandshakeError: no TLS engine, or the handshake failed or took too long. The
            connection's descriptors may already be moved: the caller can only end it.
    """
    descriptors = _take_descriptors(env)
    try:
        os.write(descriptors.control, b"Y")
        os.dup2(descriptors.read, 0)
        os.dup2(descriptors.write, 1)
        os.close(descriptors.read)
        os.close(descriptors.write)
        variables = _read_blob(descriptors.control, seconds)
    except OSError as error:
        raise HandshakeError(str(error)) from error
    finally:
        os.close(descriptors.control)
    env.update(variables)


def _take_descriptors(env: dict[str, str]) -> Descriptors:
    global provider
    if provider is not None:
        make, provider = provider, None
        try:
            return make()
        except OSError as error:
            raise HandshakeError(f"no TLS engine: {error.strerror}") from error
    try:
        control, read, write = (int(env.pop(name)) for name in DESCRIPTOR_VARIABLES)
    except (KeyError, ValueError) as error:
        raise HandshakeError("SSLCTLFD, SSLREADFD and SSLWRITEFD are not all set") from error
    return Descriptors(control, read, write)


def _read_blob(control: int, seconds: float | None) -> list[tuple[str, str]]:
    end = None if seconds is None else time.monotonic() + seconds
    poll = select.poll()
    poll.register(control, select.POLLIN)
    blob = b""
    while (variables := parse_blob(blob)) is None:
        if end is not None and not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            raise HandshakeError("TLS handshake took too long")
        chunk = os.read(control, 8192)
        if not chunk:
            raise HandshakeError("TLS handshake failed")
        blob += chunk
    return variables
