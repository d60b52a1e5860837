"""OpenSSL contexts: TLS 1.2 and 1.3, forward secrecy, authenticated encryption.

Only a process that may hold the key imports this module: it brings in ssl.
"""

import os
import ssl
import sys

from acceptutils.tls.settings import ClientCertificate, Keypair, Settings, best_match
from ucspi import log

# For TLS 1.2; those of 1.3 are all of this kind already.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
TICKETS = 1  # each costs the handshake a record; one is enough to resume once


class ContextError(Exception):
    """A certificate, a key or an authority cannot be used."""


class Contexts:
    """The contexts of one generation of certificates: one default, others by server name.

    They are made once, before any engine is forked: session tickets are sealed with
    keys that belong to a context, so every engine can open what another sealed.
    """

    def __init__(self, settings: Settings) -> None:
        """Load every certificate and key that settings name.

        Raises:
            ContextError: one of them is missing, unreadable, or does not fit.
        """
        self.server_name: str | None = None  # what this engine's client asked for
        self._named_files = settings.named
        self._named = {name: _context(settings, pair) for name, pair in settings.named.items()}
        self.default = _context(settings, settings.default)
        self.default.sni_callback = self._choose

    def _choose(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext
    ) -> None:
        self.server_name = name
        if name and (known := best_match(name, self._named_files)) is not None:
            connection.context = self._named[known]


def _context(settings: Settings, pair: Keypair | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= (
        ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    )
    context.num_tickets = TICKETS
    if pair is not None:
        try:
            context.load_cert_chain(pair.certificate, pair.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise ContextError(f"{pair.certificate}, {pair.key}: {reason(error)}") from error
    if settings.client_certificate is not ClientCertificate.NONE:
        # For blob, which runs when the library may be out of reach for want of root.
        import hashlib  # noqa: F401

        required = settings.client_certificate is ClientCertificate.REQUIRED
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        _load_authorities(context, settings)
    return context


def _load_authorities(context: ssl.SSLContext, settings: Settings) -> None:
    """Trust the certificates of CADIR, one a file, or else those of CAFILE."""
    try:
        if settings.ca_directory is not None:
            for name in sorted(os.listdir(settings.ca_directory)):
                context.load_verify_locations(os.path.join(settings.ca_directory, name))
        elif settings.ca_file is not None:
            context.load_verify_locations(settings.ca_file)
        else:
            raise ContextError("client certificates need CADIR or CAFILE")
    except (OSError, ValueError) as error:
        raise ContextError(f"authorities: {reason(error)}") from error


def keep_remarks_short(name: str) -> None:
    """Log exceptions that nobody can catch in one line each, beginning with name.

    That a server name is not ASCII is one of them: the engine says so, with whose it is.
    """

    def remark(event: "sys.UnraisableHookArgs") -> None:
        error = event.exc_value
        if not isinstance(error, UnicodeDecodeError):
            log.event({}, f"{name}: TLS: {type(error).__name__}: {error}")

    sys.unraisablehook = remark


def _no_password() -> str:
    # Without this OpenSSL would ask for it on the terminal.
    raise ValueError("the key is encrypted")


def reason(error: BaseException) -> str:
    """Return what went wrong in a few words for the log."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
