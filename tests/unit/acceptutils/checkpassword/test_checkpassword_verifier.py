"""Whether a password is right, and what is remembered of it."""

import sys
import warnings

import argon2
import pytest

from acceptutils.checkpassword import verifier
from acceptutils.checkpassword.store import Account, Accounts
from acceptutils.checkpassword.verifier import (
    CACHE_SECONDS,
    CACHE_SIZE,
    NO_PASSWORD,
    Cache,
    CannotVerify,
    Kind,
    Verifier,
    kind_of,
)
from acceptutils.checkpassword.wire import Question

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def account(hashed: str, state: str = "enabled") -> Account:
    return Account("alice@example.org", 20000, 20000, "/home/alice", hashed, state)


def accounts(one: Account) -> Accounts:
    return Accounts(("example.org",), {one.name: one})


def crypted(prefix: str, password: str = "swordfish") -> str:
    if sys.version_info >= (3, 13):
        from crypt_r import crypt
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from crypt import crypt
    hashed = crypt(password, prefix)
    assert hashed is not None
    return hashed


HASHES = [
    CHEAP.hash("swordfish", salt=b"one for all runs"),
    crypted("$y$j75$abcdefgh"),
    crypted("$6$rounds=1000$abcdefgh"),
    crypted("$2b$04$abcdefghijklmnopqrstuu"),
]


@pytest.mark.parametrize("hashed", HASHES)
def test_right_and_wrong_password(hashed: str) -> None:
    checker = Verifier()
    assert checker.verify(account(hashed), b"swordfish")
    for wrong in (b"Swordfish", b"swordfish ", b"", b"\xff"):
        assert not checker.verify(account(hashed), wrong)


def test_password_that_is_no_text() -> None:
    assert Verifier().verify(account(CHEAP.hash(b"\xff\xfe")), b"\xff\xfe")


def test_unknown_user_costs_a_hash_too(monkeypatch: pytest.MonkeyPatch) -> None:
    checker = Verifier()
    computed: list[str] = []
    monkeypatch.setattr(checker, "_argon2", lambda hashed, _: computed.append(hashed) or True)
    assert not checker.verify(None, b"swordfish")
    assert len(computed) == 1
    assert computed[0].startswith("$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize("state", ["disabled", "send-only"])
def test_state_is_looked_at_after_the_hash(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    checker = Verifier()
    computed: list[str] = []
    monkeypatch.setattr(checker, "_argon2", lambda hashed, _: computed.append(hashed) or True)
    one = account(CHEAP.hash("swordfish"), state)
    question = Question(b"pop3", b"alice", b"swordfish")
    assert checker.check(accounts(one), question) is None
    assert computed == [one.hash]


def test_check() -> None:
    checker = Verifier()
    one = account(CHEAP.hash("swordfish"))
    question = Question(b"pop3", b"ALICE", b"swordfish")
    assert checker.check(accounts(one), question) == one.identity()
    assert checker.check(accounts(one), question._replace(password=b"x")) is None
    assert checker.check(accounts(one), question._replace(user=b"bob")) is None


ARGON2 = CHEAP.hash("swordfish", salt=b"one for all runs")


@pytest.mark.parametrize(
    ("hashed", "kind"),
    [
        (ARGON2, Kind.ARGON2),
        ("$argon2i$" + ARGON2.removeprefix("$argon2id$"), Kind.ARGON2),
        (ARGON2.replace("m=8", "m=262144"), Kind.ARGON2),
        (ARGON2.replace("m=8", "m=262145"), Kind.UNKNOWN),
        (ARGON2.replace("m=8", "m=7"), Kind.UNKNOWN),
        (ARGON2.replace("t=1", "t=65"), Kind.UNKNOWN),
        (ARGON2.replace("t=1", "t=0"), Kind.UNKNOWN),
        (ARGON2.replace("p=1", "p=0"), Kind.UNKNOWN),
        (ARGON2.replace("p=1", "p=2"), Kind.UNKNOWN),
        (ARGON2 + "\n", Kind.UNKNOWN),
        ("$y$j9T$abcdefgh$9WNEpu8Mx2S4KNGvbVWKM6clOSoY6.YEl7AYF4DGV04", Kind.CRYPT),
        ("$6$saltsalt$" + "a" * 86, Kind.CRYPT),
        ("$2b$12$" + "a" * 53, Kind.CRYPT),
        ("$2y$12$" + "a" * 53, Kind.CRYPT),
        ("$1$abcdefgh$9WNEpu8Mx2S4KNGvbVWKM6", Kind.UNKNOWN),
        ("swordfish", Kind.UNKNOWN),
        ("!", Kind.UNKNOWN),
        ("!$6$saltsalt$" + "a" * 86, Kind.UNKNOWN),
        ("$6$salt:salt$" + "a" * 86, Kind.UNKNOWN),
    ],
)
def test_kind_of_hash(hashed: str, kind: Kind) -> None:
    assert kind_of(hashed) is kind


@pytest.mark.parametrize("hashed", ["!", "swordfish", "$z$unknown$" + "a" * 30])
def test_hash_of_unknown_kind_lets_nobody_in_and_takes_as_long(
    hashed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checker = Verifier()
    computed: list[str] = []
    monkeypatch.setattr(checker, "_argon2", lambda one, _: computed.append(one) or True)
    for password in (b"", hashed.encode()):
        with pytest.raises(CannotVerify):
            checker.verify(account(hashed), password)
    assert len(computed) == 2


def test_no_password_at_all_is_refused_and_takes_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    checker = Verifier()
    computed: list[str] = []
    monkeypatch.setattr(checker, "_argon2", lambda one, _: computed.append(one) or True)
    for password in (b"", NO_PASSWORD.encode()):
        assert not checker.verify(account(NO_PASSWORD), password)
    assert len(computed) == 2


def test_hash_that_cannot_be_computed_is_no_wrong_password() -> None:
    with pytest.raises(CannotVerify):
        Verifier().verify(account("$2b$99$" + "a" * 53), b"swordfish")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_right_password_is_remembered_for_a_while() -> None:
    clock = Clock()
    checker = Verifier(clock)
    one = account(HASHES[0])
    assert not checker.remembered(one, b"swordfish")
    checker.remember(one, b"swordfish")
    assert checker.remembered(one, b"swordfish")
    clock.now += CACHE_SECONDS - 1
    assert checker.remembered(one, b"swordfish")
    clock.now += 1
    assert not checker.remembered(one, b"swordfish")


def test_only_what_was_right_is_remembered() -> None:
    checker = Verifier()
    one = account(HASHES[0])
    checker.remember(one, b"swordfish")
    assert not checker.remembered(one, b"swordfis")
    assert not checker.remembered(one._replace(name="bob@example.org"), b"swordfish")
    assert not checker.remembered(None, b"swordfish")


def test_changed_hash_is_not_remembered() -> None:
    checker = Verifier()
    one = account(HASHES[0])
    checker.remember(one, b"swordfish")
    assert not checker.remembered(one._replace(hash=CHEAP.hash("swordfish")), b"swordfish")


def test_fields_of_the_digest_cannot_run_into_each_other() -> None:
    cache = Cache()
    one = account("$h")
    longer = one._replace(hash="$hx")
    assert cache.digest(one, b"xpw") != cache.digest(longer, b"pw")


def test_cache_is_bounded_and_drops_the_oldest() -> None:
    cache = Cache()
    digests = [index.to_bytes(4, "big") for index in range(CACHE_SIZE + 1)]
    for digest in digests:
        cache.add(digest)
    assert len(cache) == CACHE_SIZE
    assert digests[0] not in cache
    assert digests[1] in cache


def test_cache_holds_no_password() -> None:
    cache = Cache()
    cache.add(cache.digest(account("$h"), b"swordfish"))
    assert b"swordfish" not in b"".join(cache._expiry)


def test_crypt_without_its_module_is_no_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("crypt", "crypt_r"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CannotVerify, match="not installed"):
        verifier.crypt_matches(HASHES[1], b"swordfish")
