"""acceptserver over real sockets: what it promises without TLS."""

import os
import signal
import socket
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import PATIENCE, Server, children, descriptors, status, wait_until

Run = Callable[..., Server]

HEAVY = {
    *("ssl", "hashlib", "random", "logging", "asyncio", "threading"),
    *("subprocess", "argparse", "tempfile", "dataclasses"),
}


def test_a_connection_is_served_by_the_chain_and_ends_with_it(run: Run) -> None:
    server = run()
    with server.connect() as client:
        assert client.line() == "220 ready"
        assert client.ask("QUIT") == "221 bye"
        assert client.rest() == b""


def test_the_environment_is_that_of_a_ucspi_server(run: Run) -> None:
    server = run("-l", "mx.example.org", env={"TCPREMOTEHOST": "stale", "KEPT": "kept"})
    with server.connect() as client:
        client.line()
        own_address, own_port = client.sock.getsockname()
        for name, value in {
            "PROTO": "TCP",
            "TCPREMOTEIP": own_address,
            "TCPREMOTEPORT": str(own_port),
            "TCPLOCALIP": "127.0.0.1",
            "TCPLOCALPORT": str(server.port),
            "TCPLOCALHOST": "mx.example.org",
            "TCPREMOTEHOST": "(unset)",
            "UCSPITLS": "(unset)",
            "KEPT": "kept",
        }.items():
            assert client.ask(f"ENV {name}") == value, name


def test_session_ids_are_unique_and_in_the_log(run: Run) -> None:
    server = run()
    seen = set()
    for _ in range(3):
        with server.connect() as client:
            client.line()
            seen.add(session := client.ask("ENV SESSION_ID"))
            server.wait_for_log(f"session={session}")
    assert len(seen) == 3


def test_ipv4_clients_of_a_dual_stack_socket_look_like_ipv4(run: Run) -> None:
    server = run(host="0")
    with server.connect("127.0.0.1") as client:
        client.line()
        assert client.ask("ENV TCPREMOTEIP") == "127.0.0.1"
        assert client.ask("ENV TCPLOCALIP") == "127.0.0.1"


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("host", ["0", "::", "::1"])
def test_ipv6_clients_are_served(run: Run, host: str) -> None:
    server = run(host=host)
    with server.connect("::1") as client:
        client.line()
        assert client.ask("ENV TCPREMOTEIP") == "::1"


def test_replies_do_not_wait_for_acknowledgements(run: Run) -> None:
    server = run()
    with server.connect() as client:
        client.line()
        assert client.ask("NODELAY") == "1"


def test_readiness_is_told_once_and_the_descriptor_closed(run: Run) -> None:
    server = run()
    assert server.notified == b"\n"
    assert os.read(server.ready_read, 10) == b""


# Log.


def test_start_and_end_of_a_connection_are_one_line_each(run: Run) -> None:
    server = run()
    with server.connect() as client:
        client.line()
        client.say("EXIT 17")
        client.rest()
    end = server.wait_for_log(" end ")
    accept = server.wait_for_log(" accept ")
    assert "(1/100) ip=127.0.0.1 session=" in accept
    assert "status 17 ip=127.0.0.1" in end
    assert accept.split("session=")[1] == end.split("session=")[1]


def test_quiet_leaves_both_out(run: Run) -> None:
    server = run("-q")
    with server.connect() as client:
        client.line()
        client.ask("QUIT")
        client.rest()
    assert server.stop() == 0
    assert "accept" not in server.log().replace("acceptserver", "")
    assert " end " not in server.log()


def test_an_exception_in_the_chain_is_one_line_and_never_reaches_the_client(run: Run) -> None:
    server = run()
    with server.connect() as client:
        client.line()
        client.say("BOOM")
        assert client.rest() == b""
    server.wait_for_log("RuntimeError: boom\\x0aforged line")
    assert "status 111" in server.wait_for_log(" end ")
    with server.connect() as client:
        assert client.line() == "220 ready"


def test_a_crash_is_told_with_its_signal(run: Run) -> None:
    server = run()
    with server.connect() as client:
        client.line()
        os.kill(int(client.ask("PID").split()[0]), signal.SIGSEGV)
        client.rest()
    assert "signal 11" in server.wait_for_log(" end ")


# Processes.


def test_a_connection_holds_nothing_but_its_own_descriptors(run: Run) -> None:
    server = run()
    with server.connect() as first, server.connect() as second:
        first.line(), second.line()
        for client in first, second:
            pid = int(client.ask("PID").split()[0])
            opened = descriptors(pid)
            assert set(opened) == {0, 1, 2}
            assert opened[0] == opened[1]


def test_the_chain_finds_default_signal_handling(run: Run) -> None:
    server = run()
    with server.connect() as client:
        client.line()
        pid = int(client.ask("PID").split()[0])
        facts = status(pid)
        caught = int(facts["SigCgt"], 16)
        ignored = int(facts["SigIgn"], 16)
        blocked = int(facts["SigBlk"], 16)
        for number in signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGINT:
            for mask in caught, ignored, blocked:
                assert not mask >> (number - 1) & 1, number


def test_the_listening_process_stays_lean(run: Run) -> None:
    server = run()
    with server.connect() as client:
        client.line()
        loaded = set(client.ask("MODULES").split())
    for heavy in HEAVY:
        assert heavy not in loaded, heavy


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")
def test_privileges_are_dropped_before_the_chain_runs(run: Run) -> None:
    server = run("-u", "7791", "-g", "2108", program=["line-server"])
    with server.connect() as client:
        client.line()
        facts = status(int(client.ask("PID").split()[0]))
        assert facts["Uid"].split() == ["7791"] * 4
        assert facts["Gid"].split() == ["2108"] * 4
        assert facts["Groups"] in ("", "2108")
        assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0


def test_a_foreign_program_is_executed_with_default_signals(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "foreign"
    script.write_text('#!/bin/sh\necho "hello $TCPREMOTEIP"\ngrep ^Sig /proc/self/status\n')
    script.chmod(0o755)
    server = run(program=[str(script)])
    with server.connect() as client:
        assert client.line() == "hello 127.0.0.1"
        masks = dict(line.split(":\t") for line in client.rest().decode().splitlines())
        # Not the two above 31: whoever starts the tests may have left those to us.
        assert int(masks["SigIgn"], 16) & 0x7FFFFFFF == 0
        assert int(masks["SigBlk"], 16) & 0x7FFFFFFF == 0


def test_no_zombie_is_left_when_many_end_at_once(run: Run) -> None:
    server = run("-c", "40")
    clients = [server.connect() for _ in range(30)]
    for client in clients:
        client.line()
    for client in clients:
        client.say("QUIT")
    for client in clients:
        client.close()
    task = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    wait_until(lambda: task.read_text() == "", "all children reaped")
    assert server.log().count(" end ") == 30


def test_ends_are_told_apart_while_others_come_and_go(run: Run) -> None:
    server = run("-c", "100")
    staying = [server.connect() for _ in range(5)]
    for client in staying:
        client.line()
    for _ in range(40):
        passing = [server.connect() for _ in range(4)]
        for client in passing:
            client.say("QUIT")
            client.close()
    wait_until(lambda: server.log().count(" end ") == 160, "all that left")
    for client in staying:
        assert client.ask("QUIT") == "221 bye"
        client.close()
    wait_until(lambda: server.log().count(" end ") == 165, "those that stayed")
    with server.connect() as client:
        client.line()
    wait_until(lambda: server.log().count("(1/100)") >= 2, "nobody is counted for ever")


def test_waiting_costs_no_processor_time(run: Run) -> None:
    server = run()
    with server.connect() as client:
        client.line()

        def ticks() -> int:
            fields = Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        before = ticks()
        time.sleep(0.3)
        assert ticks() - before <= 2


# Limits.


def test_more_connections_than_the_limit_are_refused_then_served_again(run: Run) -> None:
    server = run("-c", "2", "-x", "421 too many connections, try again later (#4.3.2)")
    first, second = server.connect(), server.connect()
    first.line(), second.line()
    with server.connect() as refused:
        assert refused.rest() == b"421 too many connections, try again later (#4.3.2)\r\n"
    server.wait_for_log("refuse 1 (limit of 2 connections) ip=127.0.0.1")
    first.ask("QUIT")
    first.close()
    server.wait_for_log(" end ")
    with server.connect() as third:
        assert third.line() == "220 ready"
    second.close()


def test_a_full_server_answers_the_health_check_of_its_own_host(run: Run) -> None:
    server = run("-c", "1", "-o", "1", "-x", "421 no")
    with server.connect() as first, server.connect() as check, server.connect() as refused:
        assert first.line() == check.line() == "220 ready"
        assert refused.rest() == b"421 no\r\n"


def test_connections_per_host_are_limited_and_counted_down(run: Run) -> None:
    server = run("-C", "1")
    first = server.connect()
    first.line()
    with server.connect() as refused:
        assert refused.rest() == b""
    server.wait_for_log("limit of 1 connections per host")
    first.close()
    server.wait_for_log(" end ")
    with server.connect() as second:
        assert second.line() == "220 ready"


def test_a_refused_client_that_never_reads_does_not_hold_up_others(run: Run) -> None:
    server = run("-c", "1", "-x", "421 no")
    first = server.connect()
    first.line()
    silent = [server.connect() for _ in range(20)]
    assert first.ask("PID")
    for client in silent:
        client.close()
    first.close()


def test_a_client_that_resets_before_it_is_served_does_no_harm(run: Run) -> None:
    server = run()
    for _ in range(5):
        client = server.connect()
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    with server.connect() as client:
        assert client.line() == "220 ready"


# The end.


def test_sigterm_stops_listening_and_lets_sessions_finish(run: Run) -> None:
    server = run("-G", "60")
    client = server.connect()
    client.line()
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("terminating, 1 sessions left")
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    assert client.ask("QUIT") == "221 bye"
    client.close()
    assert server.process.wait(PATIENCE) == 0


def test_sessions_are_ended_with_all_their_processes_after_the_grace_time(
    run: Run, tmp_path: Path
) -> None:
    script = tmp_path / "stubborn"
    script.write_text("#!/bin/sh\nsleep 1000 &\necho $!\nwait\n")
    script.chmod(0o755)
    server = run("-G", "0", program=[str(script)])
    client = server.connect()
    grandchild = int(client.line())
    assert server.stop() == 0
    assert client.rest() == b""
    client.close()
    wait_until(lambda: status(grandchild).get("State", "Z")[0] == "Z", "grandchild gone")


def test_a_second_sigterm_does_not_wait_any_longer(run: Run) -> None:
    server = run("-G", "1000")
    client = server.connect()
    client.line()
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("terminating")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE) == 0
    client.close()


def test_terminating_an_idle_server_is_immediate_and_clean(run: Run) -> None:
    server = run()
    assert server.stop() == 0
    assert children(server.pid) == []


def test_an_address_in_use_is_one_line_and_status_111(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = run(program=["line-server"], host="127.0.0.1", port=taken.getsockname()[1])
        assert server.process.wait(PATIENCE) == 111
    assert "unable to listen: 127.0.0.1 port" in server.log()
    assert len(server.log().splitlines()) == 1


def test_misuse_is_one_line_and_status_100(run: Run) -> None:
    server = run("-t", "-T")
    assert server.process.wait(PATIENCE) == 100
    assert "-t and -T exclude each other; usage: acceptserver" in server.log()


def test_missing_standard_descriptors_are_made_up_for(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "closed"
    script.write_text('#!/bin/sh\nexec "$@" 0<&- 1>&-\n')
    script.chmod(0o755)
    server = run(through=[str(script)])
    for number in 0, 1:
        assert stat.S_ISCHR(os.stat(f"/proc/{server.pid}/fd/{number}").st_mode)
    with server.connect() as client:
        assert client.line() == "220 ready"
