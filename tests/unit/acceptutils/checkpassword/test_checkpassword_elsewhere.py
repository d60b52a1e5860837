"""What the programs share: from descriptor 3 to the user, whatever the check is."""

import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from acceptutils.checkpassword import elsewhere
from acceptutils.checkpassword.apart import Found, Refused
from acceptutils.checkpassword.elsewhere import Plan
from acceptutils.checkpassword.login import Login
from acceptutils.checkpassword.program import Unavailable
from acceptutils.checkpassword.wire import Identity
from ucspi import chain
from ucspi.control import ControlError

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")

# The fixtures: see conftest
Start = Callable[..., Any]
Store = Any

GOOD = b"alice\0swordfish\0\0"


def right(found: Found) -> Callable[[Login, bytes], Found | None]:
    return lambda login, password: found if password == b"swordfish" else None


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


def admit(
    plan: Plan | Callable[[], Plan], *command: str, blob: bytes | None = GOOD, **env: str
) -> tuple[int, str, str]:
    """Run admit in a child process; return its status, output and log."""
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    blob_read, blob_write = os.pipe()
    if blob is not None:
        os.write(blob_write, blob)
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            given = {1: out_write, 2: err_write}
            if blob is not None:
                given[3] = blob_read
            chain.place(given)
            kept = plan.kept if isinstance(plan, Plan) else ()
            chain.close_all_but({0, *given, *kept})
            full = {"PATH": "/usr/bin:/bin", **env}
            prepare = (lambda: plan) if isinstance(plan, Plan) else plan
            status = elsewhere.admit("program", list(command) or ["true"], full, prepare)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    for descriptor in (out_write, err_write, blob_read, blob_write):
        os.close(descriptor)
    with open(out_read) as out, open(err_read) as err:
        output, log = out.read(), err.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output, log


@needs_root
def test_becomes_whom_the_check_names(store: Store) -> None:
    home = store.path.parent / "home"
    who = Identity("a@b", 20000, 20000, str(home), "/bin/false")
    report = 'echo "$(id -u) $(id -G) $PWD $USER $AUTHUP_USER $HOME $SHELL"; exit 42'
    status, output, log = admit(Plan(right(Found("a@b", who)), 20), "sh", "-c", report)
    assert output.split() == ["20000", "20000", str(home), "a@b", "a@b", str(home), "/bin/false"]
    assert (status, log) == (42, "")


@needs_root
def test_becomes_whom_the_accounts_name(start_daemon: Start, store: Store) -> None:
    path = str(start_daemon().path)
    plan = Plan(right(Found("Alice@Example.org")), 20)
    report = "echo $(id -u) $USER"
    got = admit(plan, "sh", "-c", report, CHECKPASSWORD_SOCKET=path)
    assert got == (0, "20000 alice@example.org\n", "")
    store.write(state="send-only")
    env = {"CHECKPASSWORD_SOCKET": path, "CHECKPASSWORD_SERVICE": "pop3"}
    assert admit(plan, "echo", **env)[:2] == (1, "")
    env["CHECKPASSWORD_SERVICE"] = "submission"
    assert admit(plan, "echo", **env)[:2] == (0, "\n")


@needs_root
def test_accounts_without_a_verifier(store: Store, tmp_path: Path) -> None:
    env = {
        "CHECKPASSWORD_SOCKET": str(tmp_path / "none"),
        "CHECKPASSWORD_STORE": str(store.path),
    }
    assert admit(Plan(right(Found("alice")), 20), "id", "-u", **env) == (0, "20000\n", "")
    store.write(state="disabled")
    assert admit(Plan(right(Found("alice")), 20), "id", "-u", **env)[0] == 1


@needs_root
def test_right_password_without_an_account_is_refused_and_logged(start_daemon: Start) -> None:
    env = {"CHECKPASSWORD_SOCKET": str(start_daemon().path)}
    status, output, log = admit(Plan(right(Found("bob")), 20), "echo", "hello", **env)
    assert (status, output) == (1, "")
    assert log == "program: bob: right, but no account may use this service\n"


def test_accounts_that_cannot_be_asked_are_a_failure_for_now(tmp_path: Path) -> None:
    env = {"CHECKPASSWORD_SOCKET": str(tmp_path / "none")}
    assert admit(Plan(right(Found("alice")), 20), "echo", "hello", **env)[:2] == (111, "")


@pytest.mark.parametrize("blob", [b"\0swordfish\0\0", b"alice\0\0\0", b"alice\0wrong\0\0"])
def test_refused(blob: bytes) -> None:
    """Of these only the last is asked about at all."""
    plan = Plan(right(Found("alice")), 20)
    prepare = (lambda: plan) if b"wrong" in blob else raising(AssertionError("was asked"))
    assert admit(prepare, "echo", "hello", blob=blob) == (1, "", "")


@pytest.mark.parametrize("blob", [None, b"", b"alice\0swordfish\0", b"x" * 4000])
def test_misused_descriptor(blob: bytes | None) -> None:
    status, output, log = admit(Plan(right(Found("alice")), 20), "echo", "hello", blob=blob)
    assert (status, output) == (2, "")
    assert "program: descriptor 3" in log
    assert "swordfish" not in log


@pytest.mark.parametrize("error", [ControlError("control/x"), Unavailable("no server")])
def test_what_cannot_be_said_is_a_failure_for_now(error: Exception) -> None:
    line = f"program: {error} ip=192.0.2.1\n"
    assert admit(raising(error), "echo", TCPREMOTEIP="192.0.2.1") == (111, "", line)


def test_a_check_that_cannot_say_is_told_once() -> None:
    plan = Plan(raising(Unavailable("no server")), 20)
    assert admit(plan, "echo", "hello") == (111, "", "program: no server\n")


def test_a_check_that_hangs_is_a_failure_for_now() -> None:
    plan = Plan(lambda *_: time.sleep(99), 0.05)  # type: ignore[func-returns-value]
    status, output, log = admit(plan, "echo", "hello")
    assert (status, output) == (111, "")
    assert "no answer within 0.05 seconds" in log


@needs_root
def test_missing_home_is_a_failure_for_now_unless_none_is_wanted() -> None:
    found = Found("a", Identity("a", 20000, 20000, "/nonexistent", "/bin/sh"))
    assert admit(Plan(right(found), 20), "id", "-u")[:2] == (111, "")
    assert admit(Plan(right(found), 20, enters=False), "id", "-u")[:2] == (0, "20000\n")


def test_only_a_check() -> None:
    plan = Plan(right(Found("alice")), 20, becomes=False)
    assert admit(plan, "sh", "-c", "echo $(id -u) $USER") == (0, f"{os.getuid()}\n", "")
    assert admit(plan, "echo", blob=b"alice\0wrong\0\0")[0] == 1


@needs_root
def test_a_shared_descriptor_is_not_the_sessions() -> None:
    shared = os.memfd_create("shared")
    os.set_inheritable(shared, True)
    found = Found("a", Identity("a", 20000, 20000, "/", "/bin/sh"))
    plan = Plan(right(found), 20, kept=frozenset({2, shared}))
    status, output, _ = admit(plan, "sh", "-c", "ls /proc/self/fd")
    assert (status, str(shared) in output.split()) == (0, False)
    os.close(shared)


def test_refusals_come_at_multiples_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    for seconds, rest in ((0.1, 0.4), (0.4, 0.1), (0.75, 0.25), (3.2, 0.3)):
        monkeypatch.setattr(time, "monotonic", lambda now=100 + seconds: now)
        assert elsewhere._refuse(100) == 1
        assert waited.pop() == pytest.approx(rest)


@pytest.mark.parametrize(
    "who",
    [
        Identity("root", 0, 0, "/root", "/bin/sh"),
        Identity("daemon", 1, 1, "/", "/bin/sh"),
        Identity("disk", 20000, 6, "/", "/bin/sh"),
        Identity("qmails", 7796, 20000, "/", "/bin/sh"),
        Identity("qmail", 20000, 2107, "/", "/bin/sh"),
        Identity("a", 2**32 - 1, 20000, "/", "/bin/sh"),
        Identity("a", 20000, 20000, "", "/bin/sh"),
        Identity("a", 20000, 20000, "relative", "/bin/sh"),
        Identity("a", 20000, 20000, "/a\0b", "/bin/sh"),
    ],
)
def test_whom_nobody_becomes(who: Identity) -> None:
    with pytest.raises(Refused, match=who.name):
        elsewhere.checked(who)


def test_users_of_the_system() -> None:
    root = elsewhere.system_user("root")
    assert root is not None
    assert root.uid == 0
    for name in ("no such user", "a\0b", ""):
        assert elsewhere.system_user(name) is None


def test_as_whom_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert elsewhere.checker_ids({}) is None
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    ids = {"CHECKPASSWORD_UID": "7802", "CHECKPASSWORD_GID": "7803"}
    assert elsewhere.checker_ids(ids) == (7802, 7803)
    for wrong in ({"CHECKPASSWORD_UID": "0"}, {"CHECKPASSWORD_UID": "7802"}):
        with pytest.raises(Unavailable, match="CHECKPASSWORD_UID"):
            elsewhere.checker_ids(wrong)
    monkeypatch.setattr(elsewhere, "CHECKER", "no such user")
    with pytest.raises(Unavailable, match="no such user"):
        elsewhere.checker_ids({})
