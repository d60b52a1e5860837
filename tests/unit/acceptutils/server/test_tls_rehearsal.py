"""The zygote is an engine a few times, from the handshake to the end, before it forks any."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from acceptutils.tls import engine, rehearsal
from acceptutils.tls.context import Contexts
from acceptutils.tls.settings import Keypair, Settings


def test_rehearsal_serves_connections_to_their_end(
    certificate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    statuses: list[int] = []
    serve: Callable[..., int] = engine.serve

    def note(*arguments: object) -> int:
        statuses.append(status := serve(*arguments))
        return status

    monkeypatch.setattr(engine, "serve", note)
    pair = Keypair(str(certificate.certificate), str(certificate.key))
    settings = Settings(pair, {})
    contexts = Contexts(settings)
    opened = set(os.listdir("/proc/self/fd"))
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        rehearsal.rehearse(contexts, settings)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert statuses == [engine.ENDED] * len(rehearsal.ROUNDS)
    assert contexts.server_name is None
    assert set(os.listdir("/proc/self/fd")) == opened


def test_rehearsal_without_a_usable_certificate_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(None, {})
    opened = set(os.listdir("/proc/self/fd"))
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        rehearsal.rehearse(Contexts(settings), settings)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert set(os.listdir("/proc/self/fd")) == opened
