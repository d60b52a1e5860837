"""Becoming another user, for good."""

import os
from collections.abc import Callable

import pytest

from acceptutils import identity
from acceptutils.identity import IdentityError


def in_child(work: Callable[[], bool]) -> bool:
    """Run work in a process of its own; say whether it returned True."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


root_only = pytest.mark.skipif(os.getuid() != 0, reason="changes its uid")


@root_only
def test_every_identity_changes() -> None:
    def work() -> bool:
        os.setgroups([0, 5, 6])
        identity.become(20000, 20001)
        return (os.getresuid(), os.getresgid(), os.getgroups()) == (
            (20000,) * 3,
            (20001,) * 3,
            [20001],
        )

    assert in_child(work)


@root_only
def test_there_is_no_way_back() -> None:
    def work() -> bool:
        identity.become(20000, 20000)
        for call in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0])):
            try:
                call()
            except PermissionError:
                continue
            return False
        return True

    assert in_child(work)


@pytest.mark.parametrize(("uid", "gid"), [(0, 0), (0, 7), (7, 0), (-1, 7), (7, -1)])
def test_root_is_nobody_to_become(uid: int, gid: int) -> None:
    def work() -> bool:
        try:
            identity.become(uid, gid)
        except IdentityError:
            return True
        return False

    assert in_child(work)


@root_only
def test_somebody_cannot_become_somebody_else() -> None:
    def work() -> bool:
        identity.become(20000, 20000)
        try:
            identity.become(20001, 20001)
        except IdentityError:
            return True
        return False

    assert in_child(work)


@pytest.mark.parametrize("text", ["1", "7800", "4294967294"])
def test_number(text: str) -> None:
    assert identity.number(text) == int(text)


@pytest.mark.parametrize(
    "text", ["", "0", "00", "-1", "+1", "1.0", "x", " 1", "4294967295", "\u0661"]
)
def test_not_a_number(text: str) -> None:
    with pytest.raises(ValueError, match="unprivileged"):
        identity.number(text)


@pytest.mark.skipif(os.getuid() != 0, reason="changes its uid")
def test_afterwards_is_called_once_and_as_the_new_user() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            identity.afterwards[:] = [lambda: os.write(writing, b"%d\n" % os.getuid()) and None]
            identity.become(20000, 20001)
            identity.become(20000, 20001)
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading, "rb") as said:
        assert said.read() == b"20000\n"


def test_afterwards_is_not_called_when_nobody_was_become() -> None:
    called: list[bool] = []
    identity.afterwards[:] = [lambda: called.append(True)]
    try:
        with pytest.raises(identity.IdentityError):
            identity.become(0, 0)
    finally:
        identity.afterwards.clear()
    assert called == []
