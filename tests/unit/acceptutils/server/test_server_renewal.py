"""acceptserver executes itself anew, and nobody notices."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from .conftest import Certificate, Server, children, descriptors, replace, wait_until

Run = Callable[..., Server]


def layout(pid: int) -> str:
    """Where the process's stack begins: another place in every image."""
    line = next(
        line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if "[stack]" in line
    )
    return line.split("-")[0]


def renew(server: Server) -> None:
    """Send SIGHUP and wait until the new image serves."""
    before = layout(server.pid)

    def is_new() -> bool:
        try:
            return layout(server.pid) != before
        except StopIteration:
            return False  # in the middle of it

    server.process.send_signal(signal.SIGHUP)
    wait_until(is_new, "a new image")
    with server.connect() as client:
        assert client.line() == "220 ready"
        pid = client.ask("PID").split()[0]
    server.wait_for_log(f" end pid {pid} ")


def test_a_renewed_server_keeps_its_sessions_and_its_limits(run: Run) -> None:
    server = run("-C", "2")
    with server.connect() as old:
        old.line()
        pid, parent = old.ask("PID").split()
        renew(server)
        assert old.ask("PID") == f"{pid} {parent}"  # the same process over it, too
        with server.connect() as second:
            second.line()
            with server.connect() as third:
                assert third.rest() == b""  # the old one still counts
        assert old.ask("QUIT") == "221 bye"
    wait_until(lambda: f" end pid {pid} status 0 " in server.log(), "the old session's end")
    wait_until(lambda: server.log().count(" end ") == 3, "all ends")
    with server.connect() as first, server.connect() as second:
        assert first.line() == second.line() == "220 ready"


def test_a_session_that_ends_during_renewal_is_reaped_and_uncounted(run: Run) -> None:
    server = run("-C", "1", "-R", "1")
    for _ in range(3):  # each connection is followed by a renewal
        with server.connect() as client:
            assert client.line() == "220 ready"
        count = server.log().count(" end ")
        wait_until(lambda count=count: server.log().count(" end ") > count or count, "an end")
        wait_until(lambda: children(server.pid) == [], "reaped")


def test_connections_made_during_renewal_wait_and_are_served(run: Run) -> None:
    server = run("-R", "5", "-q")
    for _ in range(30):
        with server.connect() as client:
            assert client.line() == "220 ready"


def test_the_new_image_has_no_more_descriptors_than_the_old(
    run: Run, certificate: Certificate
) -> None:
    server = run("-t", env=certificate.env)
    assert os.read(server.ready_read, 10) == b""  # the notification's is closed
    before = len(descriptors(server.pid))
    for _ in range(3):
        renew(server)
    wait_until(lambda: len(descriptors(server.pid)) == before, "the same descriptors")
    wait_until(lambda: len(server.zygotes()) == 1, "one zygote")


def test_tls_sessions_and_offers_survive_a_renewal(run: Run, certificate: Certificate) -> None:
    server = run("-t", env=certificate.env)
    with server.connect() as inside, server.connect() as before:
        inside.line(), before.line()
        inside.start_tls()
        (old,) = server.zygotes()
        renew(server)
        wait_until(lambda: set(server.zygotes()) > {old}, "a second zygote")
        assert inside.ask("PID")
        before.start_tls()  # by the old zygote, which waits for it
        assert before.ask("QUIT") == "221 bye"
        assert inside.ask("QUIT") == "221 bye"
    wait_until(lambda: len(server.zygotes()) == 1 and old not in server.zygotes(), "old one gone")


def test_a_renewal_with_a_bad_certificate_keeps_the_good_one(
    run: Run, certificate: Certificate
) -> None:
    server = run("-t", env=certificate.env)
    replace(certificate.certificate, b"not a certificate")
    renew(server)
    server.wait_for_log("acceptserver: TLS: ")
    with server.connect() as client:
        client.line()
        client.start_tls()
        assert client.ask("QUIT") == "221 bye"


def test_the_chain_sees_nothing_of_a_renewal(run: Run) -> None:
    server = run()
    renew(server)
    with server.connect() as client:
        client.line()
        assert client.ask("ENV ACCEPTSERVER_HANDOVER") == "(unset)"
        pid = int(client.ask("PID").split()[0])
        assert set(descriptors(pid)) == {0, 1, 2}


def test_sigterm_after_a_renewal_ends_in_order(run: Run) -> None:
    server = run("-G", "60")
    with server.connect() as client:
        client.line()
        renew(server)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("terminating, 1 sessions left")
        assert client.ask("QUIT") == "221 bye"
    assert server.stop() == 0


def test_readiness_is_not_told_again(run: Run) -> None:
    server = run()
    renew(server)
    assert os.read(server.ready_read, 10) == b""
