"""The services under other people's UCSPI servers: argument order, limits, users, TLS."""

import os
from pathlib import Path

import pytest

from appliance import render
from appliance.ground import GroundError
from appliance.layout import Layout
from appliance.settings import IMPLICIT_TLS, Settings
from appliance.settings_sources import SettingsError, load
from appliance.start import check_ucspi

SUBMISSION = ["authup", "smtp", "checkpassword", "checknotroot", "fixsmtpio", "ofmipd"]
POP3 = ["authup", "pop3", "checkpassword", "checknotroot", "qmail-pop3d", "Maildir"]
MX = ["s6-setuidgid", "qmaild", "fixsmtpio", "qmail-smtpd"]

TCPSERVER = ["tcpserver", "-1", "-H", "-R", "-D", "-c", "200", "-l", "mail.example.org", "0"]
S6 = ["s6-tcpserver", "-1", "-c", "200", "-C", "50", "0.0.0.0"]
ACCESS = ["s6-tcpserver-access", "-v", "0", "-D", "-H", "-l", "mail.example.org"]
SSLSERVER = ["sslserver", "-1", "-e", "-s", "-H", "-R", "-D"]
SSLSERVER_END = ["-c", "200", "-l", "mail.example.org", "-T", "60", "0"]


def settings(ucspi: str, **variables: str) -> Settings:
    env = {f"POSTERN_{name.upper()}": text for name, text in variables.items()}
    return load({"POSTERN_HOSTNAME": "mail.example.org", "POSTERN_UCSPI": ucspi} | env).settings


def command(ucspi: str, service: str, **variables: str) -> list[str]:
    """Return the words of a run script behind the common beginning; no word has blanks here."""
    script = render.service_tree(settings(ucspi, **variables))[f"{service}/run"].content.decode()
    words = [w for line in script.splitlines() if line[:1] != "#" for w in line.split()]
    # Standard output is the descriptor on which s6 waits for a line. fdmove is found there
    # only as long as PATH is execlineb's.
    start = ["fdmove", "-c", "2", "1", "fdmove", "1", "3", "emptyenv", "-p"]
    assert words[: len(start)] == start
    return words[words.index("s6-softlimit") + 5 :]


def env(ucspi: str, service: str, **variables: str) -> dict[str, str]:
    prefix = f"{service}/env/"
    return {
        path.removeprefix(prefix): file.content.decode().removesuffix("\n")
        for path, file in render.service_tree(settings(ucspi, **variables)).items()
        if path.startswith(prefix)
    }


@pytest.mark.parametrize(
    ("service", "port", "chain"),
    [("mx", "25", MX), ("submission", "587", SUBMISSION), ("pop3", "110", POP3)],
)
def test_starttls_services(service: str, port: str, chain: list[str]) -> None:
    assert command("tcpserver", service) == [*TCPSERVER, port, "ucspitlsd", "-K", "60000", *chain]
    engine = ["s6-ucspitlsd", "-S", "-K", "60000"]
    assert command("s6", service) == [*S6, port, *ACCESS, *engine, *chain]
    assert command("sslserver", service) == [*SSLSERVER, "-n", *SSLSERVER_END, port, *chain]


@pytest.mark.parametrize(
    ("service", "port", "chain"), [("submissions", "465", SUBMISSION), ("pop3s", "995", POP3)]
)
def test_services_that_begin_with_tls(service: str, port: str, chain: list[str]) -> None:
    engine = ["s6-tlsd", "-S", "-K", "60000"]
    assert command("s6", service) == [*S6, port, *ACCESS, *engine, *chain]
    assert command("sslserver", service) == [*SSLSERVER, *SSLSERVER_END, port, *chain]
    for ucspi in ("s6", "sslserver"):
        assert "UCSPITLS" not in env(ucspi, service)


def test_tcpserver_cannot_begin_with_tls() -> None:
    chosen = settings("tcpserver")
    assert chosen.impossible == IMPLICIT_TLS
    assert not set(IMPLICIT_TLS) & {path.split("/")[0] for path in render.service_tree(chosen)}
    assert settings("tcpserver", services="mx,pop3").impossible == ()
    for ucspi in ("postern", "s6", "sslserver"):
        assert settings(ucspi).impossible == ()


@pytest.mark.parametrize("ucspi", ["tcpserver", "s6", "sslserver"])
def test_whether_tls_is_offered_is_in_the_environment(ucspi: str) -> None:
    assert env(ucspi, "mx")["UCSPITLS"] == ""
    assert env(ucspi, "submission")["UCSPITLS"] == "!"
    assert env(ucspi, "pop3")["UCSPITLS"] == "!"


def test_the_empty_variable_is_set_and_not_removed() -> None:
    """An empty file would have s6-envdir remove the variable, and TLS not be offered."""
    assert render.service_tree(settings("tcpserver"))["mx/env/UCSPITLS"].content == b"\n"


@pytest.mark.parametrize("ucspi", ["tcpserver", "s6"])
def test_key_and_user_of_the_engine(ucspi: str) -> None:
    found = env(ucspi, "submission")
    assert (found["CERTFILE"], found["KEYFILE"]) == ("/data/tls/cert.pem", "/data/tls/key.pem")
    assert (found["TLS_UID"], found["TLS_GID"]) == ("7801", "7801")


def test_key_and_user_of_sslserver() -> None:
    found = env("sslserver", "submission")
    assert (found["CERTCHAINFILE"], found["KEYFILE"]) == (
        "/data/tls/cert.pem",
        "/data/tls/key.pem",
    )
    assert (found["SSL_UID"], found["SSL_GID"]) == ("7801", "7801")
    assert not {"CERTFILE", "TLS_UID"} & found.keys()


@pytest.mark.parametrize("ucspi", ["tcpserver", "s6"])
def test_without_tls_there_is_no_engine_and_no_key(ucspi: str) -> None:
    words = command(ucspi, "mx", tls="off")
    assert words[-len(MX) :] == MX
    assert not {"ucspitlsd", "s6-ucspitlsd", "s6-tlsd"} & set(words)
    assert not {"UCSPITLS", "KEYFILE"} & env(ucspi, "mx", tls="off").keys()


def test_sslserver_without_tls_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="POSTERN_UCSPI: sslserver does not start without TLS"):
        settings("sslserver", tls="off")


def test_limits_that_s6_tcpserver_would_refuse() -> None:
    many = {"max_connections": "5000", "max_connections_per_address": "2000"}
    assert command("s6", "mx", **many)[2:6] == ["-c", "1000", "-C", "1000"]
    few = {"max_connections": "10"}
    assert command("s6", "mx", **few)[2:6] == ["-c", "10", "-C", "10"]


def test_address_and_port_are_those_of_the_settings() -> None:
    chosen = {"bind": "127.0.0.1", "ports": "mx=2525"}
    for ucspi in ("tcpserver", "s6", "sslserver"):
        words = command(ucspi, "mx", **chosen)
        assert words[words.index("127.0.0.1") + 1] == "2525"


def test_programs_of_the_other_image_are_found_by_the_services_only_with_the_setting() -> None:
    assert env("s6", "mx")["PATH"] == "/usr/bin:/bin:/var/qmail/bin:/command"
    assert env("postern", "mx")["PATH"] == "/usr/bin:/bin:/var/qmail/bin"


def test_a_server_that_is_not_in_the_image_stops_the_start(places: Layout) -> None:
    places.program_path = ""
    check_ucspi(settings("postern"), places)
    with pytest.raises(GroundError, match="no s6-tcpserver in this image; build it with UCSPI_I"):
        check_ucspi(settings("s6"), places)


def test_a_server_that_another_image_brought_is_found(places: Layout) -> None:
    places.program_path = ""
    os.mkdir(places.command)
    program = Path(places.command, "tcpserver")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    check_ucspi(settings("tcpserver"), places)
