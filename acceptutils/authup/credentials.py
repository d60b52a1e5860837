"""User names and passwords, and how the client writes them."""

import binascii
from typing import NamedTuple


class Malformed(Exception):
    """The client's bytes are no user name and password."""


class Secret:
    """A password. Its repr hides it, so no log line or traceback can show it."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytearray(value)

    def reveal(self) -> bytearray:
        """Return the password itself, not a copy: what wipes one wipes the other."""
        return self._value

    def wipe(self) -> None:
        """Overwrite the password.

        Python keeps copies that cannot be reached (the bytes a line was decoded from);
        this shortens the life of the one that would live longest.
        """
        self._value[:] = bytes(len(self._value))

    def __repr__(self) -> str:
        return "Secret(...)"


class Credentials(NamedTuple):
    """What checkpassword will get on descriptor 3."""

    user: bytes
    password: Secret
    timestamp: bytes


def decode_base64(text: bytes) -> bytes:
    """Decode base64 as RFC 4648 has it, strictly: padded, canonical, nothing beside it.

    Only text that encodes back to itself is taken. Other decoders stop at a misplaced
    ``=`` or skip what is not in the alphabet; then one line could mean two passwords.

    Raises:
        Malformed: anything else, also the empty text.
    """
    try:
        decoded = binascii.a2b_base64(text)
    except binascii.Error as error:
        raise Malformed from error
    if not text or binascii.b2a_base64(decoded, newline=False) != text:
        raise Malformed
    return decoded


def decode_word(text: bytes) -> bytes:
    """Return the user name or password that one base64 line holds (AUTH LOGIN).

    Raises:
        Malformed: bad base64, or a NUL inside: it would end the name on descriptor 3
            and let the client write the field behind it.
    """
    word = decode_base64(text)
    if not word or b"\0" in word:
        raise Malformed
    return word


def decode_plain(text: bytes) -> Credentials:
    """Return the credentials of an AUTH PLAIN response (RFC 4616).

    The authorization identity before the first NUL is ignored.

    Raises:
        Malformed: bad base64, not exactly two NULs, an empty user name or password.
    """
    fields = decode_base64(text).split(b"\0")
    if len(fields) != 3 or not fields[1] or not fields[2]:
        raise Malformed
    return Credentials(fields[1], Secret(fields[2]), b"")
