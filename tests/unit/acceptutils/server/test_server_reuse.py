"""acceptserver -r: processes that serve one connection after the other."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from .conftest import Certificate, Server, children, descriptors, lax, status, wait_until

Run = Callable[..., Server]

USER = ["-u", "7791", "-g", "2108"]

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")


def ended(server: Server, times: int) -> None:
    """Wait until so many connections are over: the log says it before the next is served."""
    wait_until(lambda: server.log().count(" end pid ") >= times, server.log())


def session(server: Server, *commands: str) -> list[str]:
    """Hold one conversation and wait until the server knows that it is over."""
    before = server.log().count(" end pid ")
    with server.connect() as client:
        answers = [client.line(), *map(client.ask, commands)]
        client.ask("QUIT")
        client.rest()
    ended(server, before + 1)
    return answers


def pid(server: Server) -> int:
    return int(session(server, "PID")[1].split()[0])


def test_a_process_serves_so_many_connections_and_no_more(run: Run) -> None:
    server = run("-r", "3", *USER)
    seen = [pid(server) for _ in range(4)]
    assert seen[0] == seen[1] == seen[2] != seen[3]
    assert server.log().count(" end pid ") == server.log().count(" accept pid ") == 4


def test_without_it_every_connection_has_its_own(run: Run) -> None:
    server = run(*USER)
    assert pid(server) != pid(server)


def test_it_is_refused_to_a_process_that_may_become_anybody(run: Run) -> None:
    server = run("-r", "2")
    assert server.process.wait(20) == 100
    assert "-r wants -u and -g" in server.log()


def test_each_connection_has_its_own_environment(run: Run) -> None:
    server = run("-r", "9", *USER)
    first = session(server, "ENV SESSION_ID", "ENV TCPREMOTEPORT")
    second = session(server, "ENV SESSION_ID", "ENV TCPREMOTEPORT")
    assert first[1] != second[1]
    assert first[2] != second[2]


def test_two_connections_at_a_time_have_two_processes(run: Run) -> None:
    server = run("-r", "9", *USER)
    with server.connect() as one, server.connect() as two:
        one.line(), two.line()
        pids = {one.ask("PID"), two.ask("PID")}
        assert len(pids) == 2
        one.ask("QUIT"), two.ask("QUIT")
        one.rest(), two.rest()
    ended(server, 2)
    assert {session(server, "PID")[1], session(server, "PID")[1]} <= pids


def test_a_process_that_waits_has_no_connection_and_is_not_root(run: Run) -> None:
    server = run("-r", "9", *USER)
    waiting = pid(server)
    assert status(waiting)["Uid"].split() == ["7791"] * 4
    assert status(waiting)["Groups"] == "2108"
    found = descriptors(waiting)
    assert {number: found[number] for number in (0, 1)} == {0: "/dev/null", 1: "/dev/null"}
    assert len(found) == 4, found  # and the log, and the way to the server


def test_a_connection_is_closed_when_its_chain_ends_not_its_process(run: Run) -> None:
    server = run("-r", "9", *USER)
    with server.connect() as client:
        client.line()
        client.say("EXIT 7")
        assert client.rest() == b""
    assert "status 7" in server.wait_for_log(" end pid ")


@pytest.mark.parametrize("command", ["BOOM", "KILL"])
def test_a_process_that_stumbles_is_not_used_again(run: Run, command: str) -> None:
    server = run("-r", "9", *USER)
    with server.connect() as client:
        client.line()
        process = int(client.ask("PID").split()[0])
        if command == "KILL":
            os.kill(process, signal.SIGKILL)
        else:
            client.say("BOOM")
        client.rest()
    ended(server, 1)
    assert pid(server) != process


def test_a_process_killed_while_it_waits_costs_nobody_anything(run: Run) -> None:
    server = run("-r", "9", *USER)
    waiting = pid(server)
    os.kill(waiting, signal.SIGKILL)
    wait_until(lambda: waiting not in children(server.pid))
    assert pid(server) != waiting
    assert server.log().count(" end pid ") == 2


def test_a_limit_counts_connections_and_not_processes(run: Run) -> None:
    server = run("-r", "9", "-c", "1", *USER)
    pid(server)
    with server.connect() as client:
        assert client.line() == "220 ready"
        with server.connect() as refused:
            assert refused.rest() == b""
        client.ask("QUIT")
    ended(server, 2)
    assert session(server)[0] == "220 ready"


def test_a_foreign_program_is_executed_and_its_process_is_spent(run: Run) -> None:
    server = run("-r", "9", *USER, program=["sh", "-c", "echo $$"])
    found = []
    for number in range(2):
        with server.connect() as client:
            found.append(client.line())
        ended(server, number + 1)
    assert len(set(found)) == 2


def test_renewal_ends_the_processes_that_wait(run: Run) -> None:
    server = run("-r", "9", *USER)
    waiting = pid(server)
    with server.connect() as client:
        client.line()
        busy = int(client.ask("PID").split()[0])
        assert busy == waiting
        other = pid(server)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: other not in children(server.pid))
        assert pid(server) not in (busy, other)
        assert client.ask("ENV PROTO") == "TCP"
        client.ask("QUIT")
    wait_until(lambda: busy not in children(server.pid))


def test_at_the_end_nobody_waits_on(run: Run) -> None:
    server = run("-r", "9", *USER)
    waiting = pid(server)
    begin = time.monotonic()
    assert server.stop() == 0
    assert not status(waiting) or status(waiting)["State"].startswith("Z")
    assert time.monotonic() - begin < 10


def test_tls_starts_in_each_connection_with_one_engine(run: Run, certificate: Certificate) -> None:
    server = run("-r", "3", "-t", *USER, env=certificate.env)
    zygote = server.zygotes()[0]
    engines = []
    for number in range(4):
        with server.connect() as client:
            client.line()
            client.start_tls(name=f"name{number}.example")
            assert client.ask("ENV SSL_TLS_SNI_SERVERNAME") == f"name{number}.example"
            engines.append(children(zygote))
            client.ask("QUIT")
            client.sock.close()
        ended(server, number + 1)
        wait_until(
            lambda: all(
                not any("socket:" in end for end in list(descriptors(engine).values())[3:-1])
                for engine in children(zygote)
            )
        )
    assert engines[0] == engines[1] == engines[2]
    assert all(len(found) == 1 for found in engines)
    assert engines[3] != engines[0]
    assert "name" not in "".join(server.log().split("listening")[0])


def test_an_engine_that_waits_holds_nothing_of_a_connection(
    run: Run, certificate: Certificate
) -> None:
    server = run("-r", "9", "-t", *USER, env=certificate.env)
    with server.connect() as client:
        client.line()
        client.start_tls()
        (engine,) = children(server.zygotes()[0])
        client.ask("QUIT")
        client.sock.close()
    wait_until(lambda: len(descriptors(engine)) == 4, "the null device twice, log, channel")
    assert status(engine)["Uid"].split() == ["7801"] * 4


def test_an_engine_may_serve_again_where_no_connection_s_process_does(
    run: Run, certificate: Certificate
) -> None:
    server = run("-e", "2", "-t", env=certificate.env)
    zygote = server.zygotes()[0]
    engines = []
    pids = set()
    for number in range(3):
        with server.connect() as client:
            client.line()
            client.start_tls()
            engines.append(children(zygote))
            pids.add(client.ask("PID"))
            client.ask("QUIT")
            client.sock.close()
        ended(server, number + 1)
        wait_until(
            lambda: all(
                not any("socket:" in end for end in list(descriptors(engine).values())[3:-1])
                for engine in children(zygote)
            )
        )
    assert len(pids) == 3
    assert engines[0] == engines[1]
    assert engines[2] != engines[0]


def test_a_failed_handshake_does_not_end_an_engine_for_others(
    run: Run, certificate: Certificate
) -> None:
    server = run("-r", "9", "-t", *USER, env=certificate.env)
    with server.connect() as client:
        client.line()
        assert client.ask("STARTTLS") == "220 go"
        client.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        client.rest()
    server.wait_for_log("TLS handshake failed")
    with server.connect() as client:
        client.line()
        client.start_tls(lax())
        assert client.ask("ENV PROTO") == "TCP"


def test_a_new_certificate_is_in_use_for_processes_that_waited(
    run: Run, certificate: Certificate
) -> None:
    server = run("-r", "9", "-t", *USER, env=certificate.env)
    process = pid(server)
    before = server.zygotes()
    certificate.issue("new.example")
    with server.connect() as client:
        client.line()
        assert int(client.ask("PID").split()[0]) == process
        client.start_tls()
        der = client.sock.getpeercert(binary_form=True)  # type: ignore[attr-defined]
        assert der is not None
        assert b"new.example" in der
    assert server.zygotes() != before
