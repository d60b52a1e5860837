"""qmail-qread and qmail-qstat print what netqmail's print."""

import errno
import os
from typing import Any

import pytest

from pyqmail.queue import ids, layout, qread, qstat

Queue = Any  # conftest.py


def test_messages_and_recipients(queue: Queue, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    d = queue.directory
    (d / layout.mess(24)).write_bytes(b"x" * 1234)
    (d / layout.info(24)).write_bytes(b"Fjoe smith@example.net\0")
    os.utime(d / layout.info(24), (827_310_879, 827_310_879))
    (d / layout.split("local", 24)).write_bytes(b"Da\x1b@here\0Tb@here\0Tcut")
    (d / layout.split("remote", 24)).write_bytes(b"Tc@far\0")
    (d / layout.bounce(24)).write_bytes(b"x")
    (d / layout.mess(25)).write_bytes(b"x")
    (d / layout.todo(25)).write_bytes(b"x")
    home = os.getcwd()
    try:
        assert qread.main(["qmail-qread"], queue.env) == 0
        assert qstat.main(["qmail-qstat"], queue.env) == 0
    finally:
        os.chdir(home)
    assert capfdbinary.readouterr().out == (
        b"20 Mar 1996 08:34:39 GMT  #24  1234  <joe smith@example.net>  bouncing\n"
        b"  done\tlocal\ta_@here\n"
        b"\tlocal\tb@here\n"
        b"\tremote\tc@far\n"
        b"messages in queue: 2\n"
        b"messages in queue but not yet preprocessed: 1\n"
    )


@pytest.mark.parametrize("main", [qread.main, qstat.main])
def test_no_queue(main: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["qmail-q"], {"QMAIL_HOME": "/nonexistent"}) == 111
    assert "qmail-q: fatal: unable to chdir to /nonexistent" in capfd.readouterr().err


@pytest.mark.parametrize("main", [qread.main, qstat.main])
def test_root_that_may_not_override_permissions_looks_as_qmails(
    main: Any, queue: Queue, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    became: list[tuple[int, int]] = []
    chdir = os.chdir

    def refuse(path: str) -> None:
        if path == "queue" and not became:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        chdir(path)

    monkeypatch.chdir(queue.home)
    monkeypatch.setattr(os, "chdir", refuse)
    monkeypatch.setattr(ids, "become", lambda uid, gid: became.append((uid, gid)))
    assert main(["qmail-q"], queue.env) == 0
    assert became == [(ids.lookup().qmails, ids.lookup().group)]


@pytest.mark.parametrize("main", [qread.main, qstat.main])
def test_who_may_not_look_is_told_so(
    main: Any, queue: Queue, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(queue.home)
    (queue.home / "queue").rename(queue.home / "elsewhere")
    assert main(["qmail-q"], queue.env) == 111
    said = "qmail-q: fatal: unable to chdir to queue: No such file or directory\n"
    assert capfd.readouterr().err == said
