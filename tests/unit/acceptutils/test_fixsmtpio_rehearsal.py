"""fixsmtpio rehearses with a server that it holds itself, and with no other."""

import os
from pathlib import Path

import pytest

from acceptutils.fixsmtpio import program
from acceptutils.fixsmtpio.session import Session
from pyqmail.ofmipd import program as ofmipd
from pyqmail.queue import client
from pyqmail.smtpd import program as smtpd
from ucspi import chain


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "me").write_text("mail.example.org\n")
    (tmp_path / "control" / "rcpthosts").write_text("example.org\n")
    (tmp_path / "control" / "fixsmtpio").write_text("")
    return tmp_path


@pytest.mark.parametrize(("name", "module"), [("qmail-smtpd", smtpd), ("ofmipd", ofmipd)])
def test_rehearsal_ends_by_quit_and_queues_nothing(
    name: str, module: object, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[bytes] = []
    answer = Session.server
    monkeypatch.setattr(
        Session, "server", lambda self, data: (said.append(data), answer(self, data))
    )
    monkeypatch.setattr(client, "Injection", None)
    monkeypatch.setattr(chain, "program_name", lambda path: path)
    monkeypatch.setattr(chain, "module_of", {name: module}.__getitem__)
    env = {"QMAIL_HOME": str(home), "UCSPITLS": "!", "TCPREMOTEIP": "127.0.0.1"}
    program.rehearse(["fixsmtpio", name], env)
    assert b"".join(said).split(b"\r\n")[-2].startswith(b"221 ")


def test_foreign_server_is_not_started(home: Path) -> None:
    trace = home / "ran"
    program.rehearse(["fixsmtpio", "touch", str(trace)], {"PATH": os.environ["PATH"]})
    assert not trace.exists()
