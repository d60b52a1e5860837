"""checknotroot: root stops here."""

import os
import traceback

import pytest

from acceptutils import checknotroot

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="changes its uid")


def run(uids: tuple[int, int, int], *arguments: str, **env: str) -> tuple[int, str]:
    """Run checknotroot with these real, effective and saved uids: status, all output."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            os.setresuid(*uids)
            full = {"PATH": "/usr/bin:/bin", **env}
            status = checknotroot.main(["checknotroot", *arguments], full)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading) as file:
        output = file.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output


@pytest.mark.parametrize("uids", [(0, 0, 0), (0, 7, 7), (7, 0, 7), (7, 7, 0)])
def test_root_in_any_of_its_uids_stops(uids: tuple[int, int, int]) -> None:
    stopped = (1, "checknotroot: WAS RUNNING AS ROOT, TERMINATING\n")
    assert run(uids, "echo", "hello") == stopped


def test_anybody_else_goes_on() -> None:
    assert run((7, 7, 7), "sh", "-c", "echo hello; exit 5") == (5, "hello\n")


def test_log_line_names_the_client() -> None:
    _, output = run((0, 0, 0), "true", TCPREMOTEIP="::1", SESSION_ID="x1")
    assert output == "checknotroot: WAS RUNNING AS ROOT, TERMINATING ip=::1 session=x1\n"


@pytest.mark.parametrize("uid", [0, 7])
def test_nothing_to_run_is_misuse(uid: int) -> None:
    assert run((uid, uid, uid)) == (1, "checknotroot: usage: checknotroot prog\n")
