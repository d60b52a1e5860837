"""A rehearsal is a whole login, and nobody logs in."""

import os
from pathlib import Path

import pytest

from acceptutils import ucspitls
from acceptutils.authup import broker, program, record
from acceptutils.authup.attempt import Broker


@pytest.mark.parametrize("protocol", ["smtp", "pop3"])
def test_rehearsal_goes_from_the_greeting_to_the_broker_s_answer(
    protocol: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ucspitls, "provider", None)
    monkeypatch.setattr(ucspitls, "withdraw", None)
    ended: list[object] = []
    received: list[record.Request] = []
    attempt, receive = Broker.attempt, broker._receive

    def note_end(*arguments: object) -> record.Ended:
        ended.append(result := attempt(*arguments))  # type: ignore[arg-type]
        return result

    def note_request(*arguments: object) -> record.Request:
        received.append(result := receive(*arguments))  # type: ignore[arg-type]
        return result

    monkeypatch.setattr(Broker, "attempt", note_end)
    monkeypatch.setattr(broker, "_receive", note_request)
    opened = set(os.listdir("/proc/self/fd"))
    env = {"QMAIL_HOME": str(home), "UCSPITLS": "!", "TCPREMOTEIP": "127.0.0.1"}
    program.rehearse(["authup", protocol, "checkpassword", "prog"], env)
    assert ended == [record.Ended(0, True)]
    assert [request.credentials.user for request in received] == [b"rehearsal"]
    assert set(os.listdir("/proc/self/fd")) == opened
