"""Whether a password is an account's."""

import hashlib
import hmac
import os
import re
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum, auto

from acceptutils.checkpassword.store import Account, Accounts
from acceptutils.checkpassword.wire import Identity, Question

# OWASP's first choice for argon2id: 19 MiB, two passes, one lane.
MEMORY_KIB = 19456
PASSES = 2
LANES = 1

# What an imported hash may cost at most: one login must not take all there is.
MOST_MEMORY_KIB = 262144
MOST_PASSES = 64

_ARGON2 = re.compile(
    r"\$argon2(?:id|i|d)\$v=19\$m=([0-9]{1,7}),t=([0-9]{1,3}),p=([0-9]{1,3})"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{16,86}"
)
# crypt(3): yescrypt, SHA-512, SHA-256, bcrypt.
_CRYPT = re.compile(r"\$(?:y|6|5|2a|2b|2y)\$[A-Za-z0-9./$=,]{20,200}")

# How the hashes begin that are made here.
_USUAL = f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}$"

# In place of a hash: no password is right here. Whoever has one has it elsewhere.
NO_PASSWORD = "*"

CACHE_SECONDS = 600.0
CACHE_SIZE = 1024


class CannotVerify(Exception):
    """The hash is of a kind that nothing here can compute."""


class Cache:
    """Which credentials were found right lately, so that a mail program that comes back
    every minute costs no argon2.

    Only right ones are kept, as the HMAC of login, password and stored hash under a key
    that never leaves the process: the memory of the process names no password, and a
    changed hash is another key. Time and number are bounded.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._key = os.urandom(32)
        self._expiry: OrderedDict[bytes, float] = OrderedDict()

    def digest(self, account: Account, password: bytes) -> bytes:
        """Return the key under which a right password of the account is kept."""
        digest = hmac.new(self._key, digestmod=hashlib.sha256)
        for part in (account.name.encode(), account.hash.encode(), password):
            digest.update(len(part).to_bytes(8, "big") + part)
        return digest.digest()

    def __contains__(self, digest: bytes) -> bool:
        expiry = self._expiry.get(digest)
        return expiry is not None and expiry > self._clock()

    def add(self, digest: bytes) -> None:
        """Keep a digest for CACHE_SECONDS from now; the oldest goes when it is full."""
        self._expiry[digest] = self._clock() + CACHE_SECONDS
        self._expiry.move_to_end(digest)
        while len(self._expiry) > CACHE_SIZE:
            self._expiry.popitem(last=False)

    def __len__(self) -> int:
        return len(self._expiry)


class Verifier:
    """Checks passwords; `check` is `prepare`, `verify` and `conclude` in one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        import argon2

        find_crypt()  # now: once root is given up, the library may be out of reach
        self._hasher = argon2.PasswordHasher(
            time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES
        )
        # Somebody's hash must be computed for an unknown name as well, or the time that
        # an answer takes would tell which names there are.
        self._nobody = self._hasher.hash(os.urandom(16))
        self._cache = Cache(clock)

    def remembered(self, account: Account | None, password: bytes) -> bool:
        """Whether this was found right lately, so that `verify` can be left out."""
        return account is not None and self._cache.digest(account, password) in self._cache

    def remember(self, account: Account, password: bytes) -> None:
        """Keep in mind that this is right."""
        self._cache.add(self._cache.digest(account, password))

    def verify(self, account: Account | None, password: bytes) -> bool:
        """Compute the hash, also for nobody; True when it is the account's.

        The only slow method, and the only one that may be called from other threads.

        Raises:
            CannotVerify: the account's hash is of a kind that cannot be computed here.
        """
        kind = kind_of(account.hash) if account else Kind.UNKNOWN
        if account and kind is Kind.ARGON2:
            return self._argon2(account.hash, password)
        if account and kind is Kind.CRYPT:
            return crypt_matches(account.hash, password)
        self._argon2(self._nobody, password)
        if account and account.hash != NO_PASSWORD:
            raise CannotVerify("the hash is of no kind, or of no cost, that is taken")
        return False

    def check(self, accounts: Accounts, question: Question) -> Identity | None:
        """Return the identity of whoever has this name and password, None when refused.

        Raises:
            CannotVerify: see verify.
        """
        account = accounts.find(question.user)
        right = self.verify(account, question.password)
        return conclude(account, question.service, right)

    def _argon2(self, hashed: str, password: bytes) -> bool:
        from argon2.exceptions import Argon2Error, InvalidHash, VerifyMismatchError

        try:
            return self._hasher.verify(hashed, password)
        except VerifyMismatchError:
            return False
        except (Argon2Error, InvalidHash) as error:
            raise CannotVerify(f"argon2: {type(error).__name__}") from error


class Kind(Enum):
    """What computes a hash."""

    ARGON2 = auto()
    CRYPT = auto()
    UNKNOWN = auto()


def kind_of(hashed: str) -> Kind:
    """Return what computes a hash; UNKNOWN also when it would cost too much."""
    if match := _ARGON2.fullmatch(hashed):
        memory, passes, lanes = (int(number) for number in match.groups())
        if lanes >= 1 and 8 * lanes <= memory <= MOST_MEMORY_KIB and 1 <= passes <= MOST_PASSES:
            return Kind.ARGON2
    elif _CRYPT.fullmatch(hashed):
        return Kind.CRYPT
    return Kind.UNKNOWN


def takes_the_usual_time(hashed: str) -> bool:
    """Whether a wrong password takes as long here as that of a user who does not exist."""
    return hashed.startswith(_USUAL) or hashed == NO_PASSWORD


def conclude(account: Account | None, service: bytes, right: bool) -> Identity | None:
    """Return whom a finished check makes of the client.

    The account's state is looked at last: a disabled account takes as long as any.
    """
    if account is None or not right or not account.allows(service):
        return None
    return account.identity()


def find_crypt() -> Callable[[str, str], str | None] | None:
    """Return crypt(3) as Python has it, None when it is not installed."""
    try:
        if sys.version_info >= (3, 13):
            from crypt_r import crypt
        else:  # the same module, while it was in the standard library
            from crypt import crypt
    except ImportError:
        return None
    found: Callable[[str, str], str | None] = crypt
    return found


def crypt_matches(hashed: str, password: bytes) -> bool:
    """Whether crypt(3) makes this hash of the password.

    Raises:
        CannotVerify: crypt(3) is not here, or does not know the kind.
    """
    crypt = find_crypt()
    if crypt is None:
        raise CannotVerify("crypt_r is not installed")
    try:
        word = password.decode("utf-8")
    except UnicodeDecodeError:
        return False  # crypt takes text only
    try:
        computed = crypt(word, hashed)
    except OSError as error:
        raise CannotVerify("crypt(3) does not know this kind of hash") from error
    if not computed or computed.startswith("*"):
        raise CannotVerify("crypt(3) does not know this kind of hash")
    return hmac.compare_digest(computed.encode(), hashed.encode())
