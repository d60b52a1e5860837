"""Turn passwords into hashes, and tell hashes that the verifier knows from others."""

import re
import sys

from appliance.errors import ApplianceError

MINIMUM = 8  # characters
MAXIMUM = 512  # bytes; RFC 4616 clients send no more than 255 in practice

# argon2id as OWASP recommends it for little memory: 19 MiB, two passes, one lane.
MEMORY_KIB = 19 * 1024
PASSES = 2
LANES = 1

NO_PASSWORD = "*"  # in place of a hash: the verifier refuses every password

KNOWN = re.compile(
    r"\$argon2id\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+\Z"
    r"|\$y\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}\Z"
    r"|\$6\$(rounds=\d+\$)?[^$:\s]{1,16}\$[./A-Za-z0-9]{86}\Z"
    r"|\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}\Z"
)


class PasswordError(ApplianceError):
    """A password or hash that cannot be used; the text says why."""


def check(password: str) -> str:
    """Return password when it can be used.

    Raises:
        PasswordError: it is too short, too long, or holds what no protocol can carry.
    """
    if len(password) < MINIMUM:
        raise PasswordError(f"the password is shorter than {MINIMUM} characters")
    if len(password.encode("utf-8", "surrogateescape")) > MAXIMUM:
        raise PasswordError(f"the password is longer than {MAXIMUM} bytes")
    if any(ord(character) < 32 or ord(character) == 127 for character in password):
        raise PasswordError("the password has a control character in it")
    return password


def hashed(password: str) -> str:
    """Return the argon2id hash of a password, with a new salt."""
    import argon2

    hasher = argon2.PasswordHasher(
        time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES, type=argon2.Type.ID
    )
    return hasher.hash(password.encode("utf-8", "surrogateescape"))


def known_hash(text: str) -> str:
    """Return text when it is a hash that the verifier can check.

    Raises:
        PasswordError: it is none of argon2id, yescrypt, sha512 and bcrypt.
    """
    if not KNOWN.match(text):
        raise PasswordError("not a hash of argon2id, yescrypt ($y$), sha512 ($6$) or bcrypt ($2b$)")
    return text


def read(prompt: str) -> str:
    """Return a password from the terminal, asked twice, or a line of standard input.

    Raises:
        PasswordError: there is none, or the two differ.
    """
    if sys.stdin.isatty():
        import getpass

        password = getpass.getpass(f"{prompt}: ")
        if getpass.getpass(f"{prompt}, again: ") != password:
            raise PasswordError("the two passwords differ")
        return password
    return read_line()


def read_line() -> str:
    """Return the first line of standard input, without its end.

    Raises:
        PasswordError: there is none.
    """
    line = sys.stdin.buffer.readline(4096)
    text = line.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    if not text:
        raise PasswordError("nothing on standard input: a password is one line of it")
    return text
