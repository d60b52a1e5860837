"""What a TLS engine needs to know, read from the environment as s6-tlsd-io reads it.

KEYFILE and CERTFILE name the private key and the certificate chain (PEM); with server
names (SNI) ``KEYFILE:name`` and ``CERTFILE:name`` name those of one server, and the
first label of name may be ``*``. CADIR or CAFILE hold the authorities that client
certificates are checked against. TLS_UID and TLS_GID are what the engine becomes once
it has read the key.
"""

import os
from enum import Enum, auto
from typing import NamedTuple

HANDSHAKE_SECONDS = 60.0

VARIABLES = ("KEYFILE", "CERTFILE", "CADIR", "CAFILE", "TLS_UID", "TLS_GID")
NAMED_PREFIXES = ("KEYFILE:", "CERTFILE:")


class SettingsError(Exception):
    """The environment does not say what an engine needs, or says it wrongly."""


class ClientCertificate(Enum):
    """Whether the client is asked for a certificate."""

    NONE = auto()
    OPTIONAL = auto()
    REQUIRED = auto()


class Closing(Enum):
    """What the client sees when the application has said its last word."""

    NOTIFY = auto()  # close_notify, then TCP's half close: every kind of peer understands
    NOTIFY_AND_END = auto()  # close_notify, and the connection is over (-S)
    HALF_CLOSE = auto()  # TCP's half close alone (-s)


class Keypair(NamedTuple):
    """The files of one certificate chain and its private key."""

    certificate: str
    key: str


class Settings(NamedTuple):
    """Everything that an engine is told at its start."""

    default: Keypair | None
    named: dict[str, Keypair]
    uid: int | None = None
    gid: int | None = None
    ca_directory: str | None = None
    ca_file: str | None = None
    client_certificate: ClientCertificate = ClientCertificate.NONE
    closing: Closing = Closing.NOTIFY
    strict_end: bool = False  # an end of file without close_notify is an error (-J)
    handshake_seconds: float | None = HANDSHAKE_SECONDS  # None: no limit
    verbosity: int = 1  # 0: quiet, 1: failed handshakes, 2: every handshake
    uses: int = 1  # connections that one engine's process serves, one after the other


def from_environment(env: dict[str, str], sni_level: int = 0) -> Settings:
    """Return the settings that env describes.

    Args:
        env: the environment.
        sni_level: 0 reads KEYFILE and CERTFILE only; 1 also those with a server name;
            2 and above only those with a server name.

    Raises:
        SettingsError: a file or a number is missing or malformed.
    """
    default = None
    if sni_level < 2:
        default = _keypair(env, "")
        if default is None and sni_level == 0:
            raise SettingsError("CERTFILE and KEYFILE are not set")
    named = _named_keypairs(env) if sni_level else {}
    if default is None and not named:
        raise SettingsError("neither CERTFILE and KEYFILE nor any CERTFILE:name is set")
    return Settings(
        default=default,
        named=named,
        uid=_number(env, "TLS_UID"),
        gid=_number(env, "TLS_GID"),
        ca_directory=env.get("CADIR"),
        ca_file=env.get("CAFILE"),
    )


def without(env: dict[str, str]) -> dict[str, str]:
    """Return env without the variables that are the engine's only."""
    return {
        name: value
        for name, value in env.items()
        if name not in VARIABLES and not name.startswith(NAMED_PREFIXES)
    }


def has_names(env: dict[str, str]) -> bool:
    """Return whether env holds a key for any server name."""
    return any(name.startswith("KEYFILE:") for name in env)


def files(settings: Settings) -> list[str]:
    """Return every file whose change makes new settings necessary."""
    pairs = [pair for pair in (settings.default, *settings.named.values()) if pair]
    return sorted({path for pair in pairs for path in pair})


def fingerprint(paths: list[str]) -> tuple[tuple[int, int, int, int] | None, ...]:
    """Return what changes whenever one of the files at paths is replaced or rewritten."""
    found: list[tuple[int, int, int, int] | None] = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(found)


def best_match(name: str, known: dict[str, Keypair]) -> str | None:
    """Return the key of known that serves the server name, None when there is none.

    A wildcard stands for exactly one label and never for a whole top-level domain
    (RFC 6125, 6.4.3).
    """
    wanted = name.lower().rstrip(".")
    if wanted in known:
        return wanted
    _, dot, parent = wanted.partition(".")
    wildcard = "*." + parent
    return wildcard if dot and "." in parent and wildcard in known else None


def _keypair(env: dict[str, str], suffix: str) -> Keypair | None:
    certificate, key = env.get("CERTFILE" + suffix), env.get("KEYFILE" + suffix)
    if certificate and key:
        return Keypair(certificate, key)
    if certificate or key:
        absent = "KEYFILE" if certificate else "CERTFILE"
        raise SettingsError(f"{absent}{suffix} is not set")
    return None


def _named_keypairs(env: dict[str, str]) -> dict[str, Keypair]:
    named = {}
    for variable in env:
        if variable.startswith(NAMED_PREFIXES):
            name = variable.partition(":")[2]
            pair = _keypair(env, ":" + name)
            if name and pair:
                named[name.lower().rstrip(".")] = pair
    return named


def _number(env: dict[str, str], name: str) -> int | None:
    value = env.get(name)
    if not value:
        return None
    if not (value.isascii() and value.isdigit()):
        raise SettingsError(f"{name} is not a number: {value}")
    return int(value)
