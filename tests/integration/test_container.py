"""The image and the container: little to attack, and it says what is wrong."""

import re
from typing import Any

import pytest
from docker.errors import ContainerError
from harness import appliance as harness
from harness.appliance import Appliance

CAPABILITIES = {"CHOWN", "SETUID", "SETGID", "NET_BIND_SERVICE", "KILL"}


def test_pid_1_is_s6_svscan(appliance: Appliance) -> None:
    status, printed = appliance.run(["cat", "/proc/1/comm"])
    assert (status, printed.strip()) == (0, "s6-svscan")


def test_it_runs_with_a_read_only_root_and_only_the_listed_capabilities(
    appliance: Appliance,
) -> None:
    host = appliance.container.attrs["HostConfig"]
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert {name.removeprefix("CAP_") for name in host["CapAdd"]} <= CAPABILITIES
    assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
    assert not host["Privileged"]


def test_no_program_is_setuid_or_setgid(appliance: Appliance) -> None:
    # With the engine's usual capabilities: root in the appliance may not even look everywhere.
    found = harness.client().containers.run(
        appliance.image,
        entrypoint=["find", "/", "-xdev", "-type", "f", "-perm", "/6000"],
        remove=True,
        network_mode="none",
    )
    assert found == b""


def test_there_is_no_compiler(appliance: Appliance) -> None:
    for program in ("cc", "gcc", "g++", "clang", "ld", "as", "make"):
        assert appliance.run(["which", program])[0] != 0, program


def test_every_module_of_ours_is_compiled(appliance: Appliance) -> None:
    script = (
        "cd /usr/lib/postern && find . -name '*.py' | while read -r file; do "
        'd=$(dirname "$file"); b=$(basename "$file" .py); '
        'ls "$d/__pycache__/$b".*.pyc >/dev/null 2>&1 || echo "$file"; done'
    )
    assert appliance.run(["sh", "-c", script]) == (0, "")


def test_the_rendered_tree_runs_from_an_empty_environment(appliance: Appliance) -> None:
    for process in appliance.processes_of("mx"):
        environment = (process.folder / "environ").read_bytes()
        assert b"POSTERN_" not in environment


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("POSTERN_HOSTNAME", "not a name", "HOSTNAME"),
        ("POSTERN_SERVICES", "mx,imap", "SERVICES"),
        ("POSTERN_HOSTNAM", "mail.example.test", "POSTERN_HOSTNAM"),
        ("POSTERN_DATABYTES", "many", "DATABYTES"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line(
    setting: str, value: str, named: str, appliance: Appliance
) -> None:
    client = harness.client()
    environment = {"POSTERN_HOSTNAME": "mail.example.test", setting: value}
    with pytest.raises(ContainerError) as failure:
        client.containers.run(
            appliance.image, environment=environment, remove=True, network_mode="none"
        )
    assert failure.value.exit_status == 78
    stderr: Any = failure.value.stderr
    printed = bytes(stderr).decode().strip()
    assert printed.count("\n") == 0
    assert re.search(named, printed, re.IGNORECASE), printed


def test_render_prints_the_same_tree_twice(appliance: Appliance) -> None:
    script = (
        "postern render /run/render-1 >/dev/null && postern render /run/render-2 >/dev/null && "
        "diff -r /run/render-1 /run/render-2 && ls /run/render-1/service"
    )
    status, printed = appliance.run(["sh", "-c", script])
    assert status == 0, printed
    assert {"mx", "submission", "submissions", "pop3", "pop3s", "queue"} <= set(printed.split())


@pytest.mark.parametrize(
    "program",
    ["qmail-qstat", "qmail-qread", "qmail-showctl", "qmail-tcpto", "qmail-tcpok", "mailq"],
)
def test_an_administrator_can_look_at_the_mailer(appliance: Appliance, program: str) -> None:
    status, printed = appliance.run([program])
    assert status == 0, printed


def test_health_names_the_part_that_fails(appliance: Appliance) -> None:
    scan = "/run/postern/service"
    assert appliance.postern("health")[0] == 0
    try:
        assert appliance.run(["s6-svc", "-wd", "-d", f"{scan}/pop3"])[0] == 0
        status, printed = appliance.postern("health")
        assert status == 1
        assert "pop3" in printed
        assert "submission" not in printed
    finally:
        appliance.run(["s6-svc", "-wU", "-u", f"{scan}/pop3"])
    appliance.wait_healthy()
