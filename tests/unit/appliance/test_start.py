"""``postern start``: what it checks and prepares before it becomes the first process."""

import json
import os
from pathlib import Path

import pytest

from appliance import durable, render, settings_sources, start
from appliance.ground import GroundError
from appliance.layout import Layout
from appliance.settings import Settings
from appliance.settings_sources import SettingsError, load

PREPARE = """\
#!/bin/sh
mkdir -p "$1"
"""


@pytest.fixture(autouse=True)
def no_file_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_sources, "DEFAULT_CONFIG", str(tmp_path / "none.toml"))


def settings(**variables: str) -> Settings:
    env = {f"POSTERN_{name.upper()}": text for name, text in variables.items()}
    return load({"POSTERN_HOSTNAME": "mail.example.org"} | env).settings


@pytest.fixture
def image(places: Layout) -> Layout:
    for name in ("qmail-queue-prepare", "qmail-send"):
        program = Path(places.qmail, "bin", name)
        program.write_text(PREPARE)
        program.chmod(0o755)
    return places


def test_wrong_setting_is_exit_78(capsys: pytest.CaptureFixture[str]) -> None:
    env = {"POSTERN_HOSTNAME": "mail.example.org", "POSTERN_GRACE": "x"}
    assert start.main(["start"], env) == 78
    assert capsys.readouterr().err.startswith("postern: POSTERN_GRACE: got 'x'")


def test_arguments_are_wrong_usage() -> None:
    assert start.main(["start", "now"], {}) == 100


def test_prepare_makes_everything(image: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    start.prepare(settings(), image)
    assert Path(image.services, "mx/run").exists()
    assert Path(image.services, ".s6-svscan/SIGTERM").exists()
    assert Path(image.control, "me").read_text() == "mail.example.org\n"
    assert Path(image.control, "rcpthosts").read_text().splitlines()[-1] == "example.org"
    assert Path(image.alias, ".qmail-example:org-postmaster").read_text() == "./Maildir/\n"
    assert Path(image.key).stat().st_mode & 0o777 == 0o400
    assert Path(image.store).exists()
    said = capsys.readouterr().out
    assert "SELF-SIGNED" in said
    assert "no accounts yet" in said


def test_program_that_checks_passwords_must_be_there(image: Layout) -> None:
    with pytest.raises(SettingsError, match="POSTERN_CHECKPASSWORD: there is no program typo in"):
        start.prepare(settings(checkpassword="typo -x"), image)
    assert not os.path.exists(image.services)
    start.prepare(settings(checkpassword="/bin/true x"), image)


def test_library_that_checks_passwords_must_be_there(
    image: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(start.LIBRARIES, "checkpassword-ldap", ("no_such_module", "ldap"))
    with pytest.raises(GroundError, match="build it with CHECKPASSWORD=ldap"):
        start.prepare(settings(checkpassword="checkpassword-ldap"), image)


def snapshot(directory: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(directory).rglob("*") if path.is_file()}


def test_restart_leaves_the_volume_as_it_is(image: Layout) -> None:
    start.prepare(settings(), image)
    before = snapshot(image.data), snapshot(image.control), snapshot(image.services)
    start.prepare(settings(), image)
    assert (snapshot(image.data), snapshot(image.control), snapshot(image.services)) == before


def test_restart_with_fewer_services_removes_the_others(image: Layout) -> None:
    start.prepare(settings(), image)
    start.prepare(settings(services="mx,queue"), image)
    wanted = [".s6-svscan", "mailauthd", "mx", "queue", "queue-server"]
    assert sorted(os.listdir(image.services)) == wanted


def test_domains_of_the_settings_are_added_to_those_of_the_store(image: Layout) -> None:
    start.prepare(settings(domains="a.example"), image)
    start.prepare(settings(domains="b.example"), image)
    assert Path(image.control, "virtualdomains").read_text() == (
        "a.example:a.example\nb.example:b.example\n"
    )


def test_postmaster_of_the_settings(image: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    start.prepare(settings(postmaster="boss@example.com"), image)
    assert Path(image.alias, ".qmail-postmaster").read_text() == "&boss@example.com\n"
    assert "POSTMASTER" not in capsys.readouterr().out


def test_postmaster_who_does_not_exist_is_pointed_out(
    image: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    start.prepare(settings(postmaster="boss@example.org"), image)
    assert "boss@example.org is neither account nor alias yet" in capsys.readouterr().out


def test_log_format_is_that_of_the_services(
    image: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    start.prepare(settings(log_format="json"), image)
    for line in capsys.readouterr().out.splitlines():
        assert json.loads(line)["service"] == "postern"


def test_tls_off_says_loudly_what_does_not_run(
    image: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    start.prepare(settings(tls="off"), image)
    assert "TLS IS OFF: not running submission submissions pop3 pop3s" in capsys.readouterr().out
    assert not Path(image.key).exists()


def test_start_says_which_services_the_server_cannot_serve(
    image: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    program = Path(image.qmail, "bin/tcpserver")
    program.write_text(PREPARE)
    program.chmod(0o755)
    start.prepare(settings(ucspi="tcpserver"), image)
    said = "tcpserver CANNOT BEGIN WITH TLS: not running submissions pop3s"
    assert said in capsys.readouterr().out
    assert Path(image.services, "submission").exists()
    assert not Path(image.services, "submissions").exists()


def test_unusable_certificate_is_a_wrong_setting(image: Layout, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="POSTERN_TLS_CERT, POSTERN_TLS_KEY: /none: No such"):
        start.prepare(settings(tls_cert="/none", tls_key="/none"), image)


def test_control_directory_of_a_tmpfs_is_not_left_to_everybody(image: Layout) -> None:
    os.chmod(image.control, 0o1777)
    start.prepare(settings(), image)
    assert os.stat(image.control).st_mode & 0o7777 == 0o755


def test_mounted_control_file_is_kept_and_named(
    image: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(image.control, "databytes").write_text("1000\n")
    start.prepare(settings(), image)
    assert Path(image.control, "databytes").read_text() == "1000\n"
    assert "stay as they are: databytes" in capsys.readouterr().out


def test_read_only_control_directory_names_what_it_lacks(
    image: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, *_: object, **__: object) -> None:
        if path.startswith(image.control):
            raise OSError(30, "Read-only file system")
        replace(path, *_, **__)  # type: ignore[arg-type]

    replace = durable.replace
    monkeypatch.setattr(durable, "replace", refuse)
    with pytest.raises(GroundError, match=r"it lacks: .*rcpthosts.*: add --tmpfs"):
        start.prepare(settings(), image)


def test_image_without_a_mailer_is_told_so(image: Layout) -> None:
    os.unlink(image.qmail + "/bin/qmail-send")
    with pytest.raises(GroundError, match="there is no mailer"):
        start.prepare(settings(), image)


def test_mailer_is_found_by_what_qmail_send_is(image: Layout) -> None:
    assert render.installed_mailer(settings(), image) == "netqmail"
    program = Path(image.qmail, "bin/qmail-send")
    program.rename(Path(image.root, "launch"))
    program.symlink_to(Path(image.root, "launch"))
    assert render.installed_mailer(settings(), image) == "pyqmail"
    assert render.installed_mailer(settings(mailer="netqmail"), image) == "netqmail"


def test_queue_that_cannot_be_made_stops_the_start(image: Layout) -> None:
    Path(image.qmail, "bin/qmail-queue-prepare").write_text("#!/bin/sh\nexit 111\n")
    with pytest.raises(GroundError, match=r"queue: cannot be prepared \(exit 111\)"):
        start.prepare(settings(), image)


def test_s6_gets_no_environment_but_path(image: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def execute(argv: list[str], env: dict[str, str]) -> int:
        seen.extend([argv, env])
        return 111

    monkeypatch.setattr("ucspi.chain.execute", execute)
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    previous = os.getcwd()
    try:
        assert start.become_svscan(image) == 111
    finally:
        os.chdir(previous)
    assert seen == [["s6-svscan", "-t", "0", image.services], {"PATH": "/usr/bin:/bin"}]
