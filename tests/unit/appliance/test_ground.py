"""What ``postern start`` needs of its container, and how it says what is missing."""

import fcntl
import os
from pathlib import Path

import pytest

from appliance import ground
from appliance.ground import GroundError
from appliance.layout import Layout
from appliance.settings import Settings
from appliance.settings_sources import load


def settings(**variables: str) -> Settings:
    env = {f"POSTERN_{name.upper()}": text for name, text in variables.items()}
    return load({"POSTERN_HOSTNAME": "mail.example.org"} | env).settings


def status(tmp_path: Path, *bits: int) -> str:
    path = tmp_path / "status"
    path.write_text(f"Name:\tpostern\nCapEff:\t{sum(1 << bit for bit in bits):016x}\n")
    return str(path)


def test_missing_capability_is_named_with_the_option_that_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(ground, "unprivileged_port_floor", lambda: 0)
    ground.check_rights(settings(), status(tmp_path, 0, 5, 6, 7))
    with pytest.raises(GroundError, match=r"KILL \(.*\): --cap-add KILL\Z"):
        ground.check_rights(settings(), status(tmp_path, 0, 6, 7))


def test_low_ports_need_a_capability_only_where_the_kernel_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(ground, "unprivileged_port_floor", lambda: 1024)
    without = status(tmp_path, 0, 5, 6, 7)
    with pytest.raises(GroundError, match="NET_BIND_SERVICE"):
        ground.check_rights(settings(), without)
    ground.check_rights(settings(services="mx", ports="mx=2525"), without)
    ground.check_rights(settings(services="queue"), without)


def test_other_users_than_root_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(GroundError, match="runs as uid 1000"):
        ground.check_rights(settings())


@pytest.mark.parametrize(
    ("place", "told"),
    [("run", "add --tmpfs .*/run"), ("data", "must be root's")],
)
def test_place_that_cannot_be_written_is_named_with_the_remedy(
    places: Layout, monkeypatch: pytest.MonkeyPatch, place: str, told: str
) -> None:
    ground.check_writable(places)
    path = getattr(places, place)
    os.chown(path, 1000, 1000)
    monkeypatch.setattr(os, "access", lambda asked, _: asked != path)
    with pytest.raises(GroundError, match=f"{path}: cannot be written.*{told}"):
        ground.check_writable(places)


def test_second_start_beside_running_services_is_refused(places: Layout) -> None:
    ground.check_alone(places)
    os.makedirs(places.services + "/.s6-svscan")
    lock = places.services + "/.s6-svscan/lock"
    ready, holder = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with open(lock, "w") as file:
                fcntl.lockf(file, fcntl.LOCK_EX)
                os.write(ready[1], b"x")
                os.close(holder[1])
                os.read(holder[0], 1)
        finally:
            os._exit(0)
    os.close(holder[0])
    try:
        assert os.read(ready[0], 1) == b"x"
        with pytest.raises(GroundError, match="running already"):
            ground.check_alone(places)
    finally:
        os.close(holder[1])
        os.waitpid(pid, 0)
        os.close(ready[0])
        os.close(ready[1])


@pytest.mark.parametrize(("value", "doubtful"), [("0", False), ("1", True), ("2", False)])
def test_a_kernel_that_hides_no_memory_is_pointed_out(
    tmp_path: Path, value: str, doubtful: bool
) -> None:
    setting = tmp_path / "suid_dumpable"
    setting.write_text(value + "\n")
    assert bool(ground.doubt_about_memory(str(setting))) is doubtful
    assert ground.doubt_about_memory(str(tmp_path / "missing")) == ""
