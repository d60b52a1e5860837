"""The rendered tree: what s6 finds, and that no value can become more than a word."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import health, render
from appliance.render import RenderError, execline_quote
from appliance.settings import Settings
from appliance.settings_sources import SettingsError, load

NUMBERS = ("notification-fd", "timeout-kill", "max-death-tally")


def settings(**variables: str) -> Settings:
    env = {f"POSTERN_{name.upper()}": text for name, text in variables.items()}
    return load({"POSTERN_HOSTNAME": "mail.example.org"} | env).settings


def tree(**variables: str) -> render.Tree:
    return render.service_tree(settings(**variables))


def words(script: bytes) -> list[str]:
    """Read a script without blocks as execlineb does; see its "Syntax of scripts"."""
    text = script.decode()
    found: list[str] = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
        elif text[position] == "#":
            position = text.index("\n", position)
        else:
            word = ""
            while position < len(text) and not text[position].isspace():
                if text[position] == '"':
                    position += 1
                    while text[position] != '"':
                        if text[position] == "\\":
                            position += 1
                            word += {"n": "\n", "t": "\t"}.get(text[position], text[position])
                        else:
                            word += text[position]
                        position += 1
                else:
                    assert text[position] != "\\", "bare words have no escapes"
                    word += text[position]
                position += 1
            found.append(word)
    return found


def command(service: str, **variables: str) -> list[str]:
    """Return the words of a run script from the program on."""
    found = words(tree(**variables)[f"{service}/run"].content)
    rest = found[found.index("s6-softlimit") + 1 :]
    while rest[0].startswith("-"):
        rest = rest[2:]
    return rest


def test_a_session_has_a_limit_of_memory_and_leaves_no_core() -> None:
    for service in ("mx", "submission", "submissions", "pop3", "pop3s"):
        assert "s6-softlimit -c 0 -d 1073741824\n" in tree()[f"{service}/run"].content.decode()
    assert "s6-softlimit -c 0\n" in tree()["queue/run"].content.decode()


def env(service: str, **variables: str) -> dict[str, str]:
    prefix = f"{service}/env/"
    return {
        path.removeprefix(prefix): file.content.decode().removesuffix("\n")
        for path, file in tree(**variables).items()
        if path.startswith(prefix)
    }


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_quoted_word_is_read_as_exactly_that_word(text: str) -> None:
    assert words(f"before {execline_quote(text)} after".encode()) == ["before", text, "after"]


EXECLINEB = shutil.which("execlineb")


@pytest.mark.skipif(EXECLINEB is None, reason="execline is not installed")
def test_execlineb_reads_quoted_words_so(tmp_path: Path) -> None:
    texts = ["", " ", "{", "}", "#x", '"', "\\", "a\\nb", "a\nb", "${PATH}", "$PATH", "\\0x41", "é"]
    command = ["/usr/bin/printf", "%s\\0", *texts]
    script = tmp_path / "script"
    script.write_text(" ".join(map(execline_quote, command)))
    done = subprocess.run([str(EXECLINEB), "-P", script], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == texts


def test_nul_cannot_be_quoted() -> None:
    with pytest.raises(RenderError):
        execline_quote("a\0b")


def test_every_value_in_a_script_is_quoted_without_asking() -> None:
    template = render.SCRIPTS.from_string("prog {{ one }} {{ many }} {{ 5 + number }}")
    text = template.render(one='a "b" ; c', many=["x y", "{"], number=2)
    assert words(text.encode()) == ["prog", 'a "b" ; c', "x y", "{", "7"]


def test_a_value_in_a_file_of_lines_cannot_add_a_line() -> None:
    template = render.LINES.from_string("{{ value }}\n")
    with pytest.raises(RenderError):
        template.render(value="a\nb")


def test_undefined_name_is_an_error() -> None:
    for environment in (render.SCRIPTS, render.LINES):
        with pytest.raises(jinja2.UndefinedError):
            environment.from_string("{{ nothing }}").render()


def test_mx_is_qmaild_from_the_first_byte() -> None:
    assert command("mx") == [
        *[
            "acceptserver",
            "-n",
            "3",
            "-c",
            "200",
            "-C",
            "50",
            "-o",
            "4",
            "-l",
            "mail.example.org",
            "-G",
            "8",
        ],
        *["-x", "421 mail.example.org too many connections (#4.3.2)"],
        *["-u", "7791", "-g", "2108", "-r", "100", "-t", "0", "25", "fixsmtpio", "qmail-smtpd"],
    ]


SUBMISSION = ["authup", "smtp", "checkpassword", "checknotroot", "fixsmtpio", "ofmipd"]
POP3 = ["authup", "pop3", "checkpassword", "checknotroot", "qmail-pop3d", "Maildir"]


@pytest.mark.parametrize(
    ("service", "flag", "port", "chain"),
    [
        ("submission", "-t", "587", SUBMISSION),
        ("submissions", "-T", "465", SUBMISSION),
        ("pop3", "-t", "110", POP3),
        ("pop3s", "-T", "995", POP3),
    ],
)
def test_chain_of_authenticated_services(
    service: str, flag: str, port: str, chain: list[str]
) -> None:
    found = command(service)
    assert found[-len(chain) - 3 :] == [flag, "0", port, *chain]
    assert "-u" not in found


def test_engines_of_users_serve_again_only_where_that_is_asked_for() -> None:
    assert "-e" not in command("pop3s")
    found = command("pop3s", sessions_per_engine="9")
    assert found[found.index("-e") + 1] == "9"
    assert "-e" not in command("mx", sessions_per_engine="9")


def test_starttls_is_required_where_passwords_are_asked_for() -> None:
    assert env("submission")["UCSPITLS"] == "!"
    assert env("pop3")["UCSPITLS"] == "!"
    assert "UCSPITLS" not in env("mx")
    assert "UCSPITLS" not in env("submissions")


def test_environment_of_submission() -> None:
    assert env("submission") == {
        "PATH": "/usr/bin:/bin:/var/qmail/bin",
        "CERTFILE": "/data/tls/cert.pem",
        "KEYFILE": "/data/tls/key.pem",
        "TLS_UID": "7801",
        "TLS_GID": "7801",
        "TMPDIR": "/data/tmp",
        "AUTHUP_UID": "7800",
        "AUTHUP_GID": "7800",
        "AUTHGUARD_SOCKET": "/run/postern/guard.sock",
        "CHECKPASSWORD_SERVICE": "submission",
        "CHECKPASSWORD_SOCKET": "/run/postern/checkpassword.sock",
        "QMAILQUEUE": "/var/qmail/bin/qmail-qfilter-queue",
        "QMAILQUEUEFILTERS": "control/ofmipfilters",
        "OFMIP_SENDERS": "users/senders.cdb",
        "UCSPITLS": "!",
    }


def test_no_service_gets_an_environment_but_its_own() -> None:
    for path, file in tree().items():
        if path.endswith("/run") and "/log/" not in path:
            found = words(file.content)
            assert found[:7] == ["fdmove", "-c", "2", "1", "emptyenv", "-p", "s6-envdir"]


def test_sender_check_can_be_switched_off() -> None:
    assert "OFMIP_SENDERS" not in env("submission", sender_check="off")


def test_given_certificate_is_the_one_in_use() -> None:
    found = env("mx", tls_cert="/c/cert.pem", tls_key="/c/key.pem")
    assert (found["CERTFILE"], found["KEYFILE"]) == ("/c/cert.pem", "/c/key.pem")


def test_without_tls_there_is_no_service_with_passwords_and_no_key() -> None:
    without = tree(tls="off")
    assert {path.split("/")[0] for path in without} == {
        *(".s6-svscan", "mx", "mailauthd", "queue", "queue-server"),
    }
    assert "-t" not in command("mx", tls="off")
    assert not {"KEYFILE", "CERTFILE", "TLS_UID"} & env("mx", tls="off").keys()


def test_the_guard_knows_whom_to_let_alone() -> None:
    plain = ["authguardd", "-n", "3", "-u", "7792", "-g", "2108"]
    sockets = ["-d", "/var/qmail/control/virtualdomains"]
    sockets += ["/run/postern/guard.sock", "/run/postern/auth-events.sock"]
    assert command("authguardd") == plain + sockets
    found = command("authguardd", guard_allow="192.0.2.0/24, 2001:db8::1")
    assert found == [*plain, "-a", "192.0.2.0/24,2001:db8::1/128", *sockets]


@pytest.mark.parametrize("service", ["mx", "submission", "submissions", "pop3", "pop3s"])
def test_proxies_are_known_to_every_service(service: str) -> None:
    found = command(service, proxy_networks="10.0.0.5 fd00::/64")
    assert found[found.index("-p") + 1] == "10.0.0.5/32,fd00::/64"
    assert "-p" not in command(service)


def test_services_that_were_not_asked_for_are_not_there() -> None:
    found = {path.split("/")[0] for path in tree(services="pop3s")}
    assert found == {".s6-svscan", "pop3s", "checkpasswordd", "authguardd"}


@pytest.mark.parametrize("kind", ["ldap", "pam -s mail", "sql"])
def test_where_passwords_are_elsewhere_the_verifier_knows_the_accounts(kind: str) -> None:
    chosen = {"checkpassword": f"checkpassword-{kind}", "services": "submissions"}
    assert any(path.startswith("checkpasswordd/") for path in tree(**chosen))


def test_another_checkpassword_needs_no_verifier() -> None:
    chosen = {"checkpassword": "checkpoppasswd -s 'my mail'", "services": "submissions"}
    assert not any(path.startswith("checkpasswordd/") for path in tree(**chosen))
    found = command("submissions", **chosen)
    assert found[found.index("smtp") + 1 :][:4] == [
        "checkpoppasswd",
        "-s",
        "my mail",
        SUBMISSION[3],
    ]


@pytest.mark.parametrize("mailer", ["pyqmail", "netqmail"])
def test_the_queue_server_is_there_for_our_qmail_queue(mailer: str) -> None:
    assert "queue-server/run" in render.service_tree(settings(), mailer)


def test_settings_reach_the_command_line() -> None:
    found = command(
        "pop3",
        ports="pop3=1110",
        bind="::1",
        auth_tries="3",
        max_connections="9",
        max_connections_per_address="2",
    )
    assert found[1:7] == ["-n", "3", "-c", "9", "-C", "2"]
    assert found[found.index("::1") :][:6] == ["::1", "1110", "authup", "-t", "3", "pop3"]


def test_every_service_directory_is_complete() -> None:
    whole = tree()
    for name in {path.split("/")[0] for path in whole} - {".s6-svscan"}:
        assert whole[f"{name}/run"].executable
        assert whole[f"{name}/finish"].executable
        assert whole[f"{name}/log/run"].executable
        for line in whole[f"{name}/data/check"].content.decode().splitlines():
            assert line.split()[0] in health.CHECKS
        for number in NUMBERS:
            if (name, number) != ("queue", "notification-fd"):
                assert re.fullmatch(rb"[1-9]\d*\n", whole[f"{name}/{number}"].content)


def test_programs_and_only_they_are_executable() -> None:
    for path, file in tree().items():
        assert file.executable == file.content.startswith(b"#!/usr/bin/execlineb -"), path
        assert file.content.endswith(b"\n"), path


def test_who_takes_or_hands_out_mail_stops_before_what_it_needs() -> None:
    script = tree()[".s6-svscan/SIGTERM"].content.decode()
    first, _, then = script.partition("s6-svscanctl -t .")
    for name in ("mx", "submission", "submissions", "pop3", "pop3s", "queue"):
        assert f"s6-svc -d {name} " in first
    assert "queue-server" not in first
    assert "checkpasswordd" not in first
    assert "authguardd" not in first
    assert "s6-svwait -d -t 9000 " in first
    assert "kill -KILL -1" in then


def test_log_lines_name_their_service() -> None:
    assert words(tree()["mx/log/run"].content)[-3:] == ["-b", "pmx:", "1"]
    assert words(tree(log_format="json")["mx/log/run"].content)[-3:] == ["postern", "log", "mx"]
    assert words(tree()["mx/log/run"].content)[2:4] == ["s6-setuidgid", "qmaill"]


def test_written_tree_has_its_modes_whatever_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        render.write(tree(), str(tmp_path / "service"))
    finally:
        os.umask(previous)
    assert (tmp_path / "service/mx/run").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "service/mx/env/PATH").stat().st_mode & 0o777 == 0o644


def test_where_nothing_may_be_executed_scripts_are_links_to_a_program() -> None:
    files, links = render.link_scripts(tree(), runner="/lib/run")
    assert links["mx/run"] == "/lib/run"
    assert links[".s6-svscan/SIGTERM"] == "/lib/run"
    assert files["mx/run.execline"] == tree()["mx/run"]._replace(executable=False)
    assert "mx/run" not in files
    assert os.access(render.SCRIPT_RUNNER, os.X_OK)


@pytest.mark.skipif(EXECLINEB is None, reason="execline is not installed")
def test_the_linked_program_runs_the_script_beside_the_link(tmp_path: Path) -> None:
    (tmp_path / "finish").symlink_to(render.SCRIPT_RUNNER)
    (tmp_path / "finish.execline").write_text("#!/usr/bin/execlineb -S2\necho ${1} ${2}\n")
    done = subprocess.run(
        ["./finish", "256", "9"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "256 9\n"


def test_control_files() -> None:
    files = render.control_tree(settings(), ["example.org", "another.example"])
    found = {name: file.content.decode() for name, file in files.items()}
    assert found["me"] == "mail.example.org\n"
    assert found["locals"] == "mail.example.org\n"
    assert found["rcpthosts"] == "mail.example.org\nanother.example\nexample.org\n"
    assert found["virtualdomains"] == "another.example:another.example\nexample.org:example.org\n"
    assert found["defaulthost"] == "example.org\n"
    assert found["databytes"] == "52428800\n"
    assert found["smtpcapabilities"] == "PIPELINING\n8BITMIME\nSIZE 52428800\n"
    assert found["pop3capabilities"] == "TOP\nUIDL\n"
    assert found["ofmipfilters"] == "qmail-qfilter-dkimsign qmail-qfilter-addtlsheader\n"
    assert found["smtpfilters"] == "qmail-qfilter-authresults qmail-qfilter-addtlsheader\n"
    assert found["timeoutsmtpd"] == "300\n"
    assert found["concurrencyremote"] == "20\n"
    assert "smtproutes" not in found


def test_without_message_authentication_there_is_one_filter_and_no_daemon() -> None:
    off = {"dkim": "off", "mail_authentication": "off"}
    files = render.control_tree(settings(**off), [])
    assert files["ofmipfilters"] == files["smtpfilters"]
    assert files["smtpfilters"].content == b"qmail-qfilter-addtlsheader\n"
    assert not {"dkimsignd", "mailauthd"} & {path.split("/")[0] for path in tree(**off)}


def test_a_role_has_only_the_daemon_that_it_needs() -> None:
    found = {path.split("/")[0] for path in tree(services="mx")}
    assert "mailauthd" in found
    assert "dkimsignd" not in found
    found = {path.split("/")[0] for path in tree(services="submissions")}
    assert "dkimsignd" in found
    assert "mailauthd" not in found


def test_the_daemons_of_message_authentication() -> None:
    assert command("dkimsignd") == [
        *["dkimsignd", "-n", "3", "-u", "7803", "-g", "7803"],
        *["-s", "/var/qmail/users/senders.cdb", "-a", "/var/qmail/users/assign"],
        *["/data/dkim", "/run/postern/dkimsign.sock"],
    ]
    assert "-s" not in command("dkimsignd", sender_check="off")
    plain = ["mailauthd", "-n", "3", "-u", "7804", "-g", "7804", "-p", "7791"]
    place = "/run/postern/mailauth.sock"
    assert command("mailauthd") == [*plain, "-t", "10", place]
    enforcing = {"mail_authentication": "enforce", "mail_authentication_timeout": "5"}
    assert command("mailauthd", **enforcing) == [*plain, "-e", "-t", "5", place]
    assert env("mx", **enforcing)["MAILAUTH_REQUIRED"] == "1"
    assert "MAILAUTH_REQUIRED" not in env("mx")


def test_scanners_come_first_and_are_only_where_they_are_wanted() -> None:
    scanning = {"virus_scanner": "clamd:av:3310", "spam_scanner": "rspamd:http://spam:11333"}
    files = render.control_tree(settings(**scanning), [])
    assert files["smtpfilters"].content.startswith(b"qmail-qfilter-scan qmail-qfilter-auth")
    assert files["ofmipfilters"].content.startswith(b"qmail-qfilter-scan qmail-qfilter-dkim")
    assert env("mx", **scanning)["SPAM_SCANNER"] == "rspamd:http://spam:11333"
    assert env("mx", **scanning)["SCANNER_DOWN"] == "defer"
    assert env("submissions", **scanning)["VIRUS_SCANNER"] == "clamd:av:3310"
    assert "SPAM_SCANNER" not in env("submissions", **scanning)
    assert not {"VIRUS_SCANNER", "SPAM_SCANNER", "SCANNER_DOWN"} & env("mx").keys()
    only_spam = {"spam_scanner": "rspamd:http://spam"}
    assert b"scan" not in render.control_tree(settings(**only_spam), [])["ofmipfilters"].content


@pytest.mark.parametrize("place", ["clamd:/run/clamd.sock", "clamd:av", "clamd:[::1]:3310"])
def test_where_clamd_can_be(place: str) -> None:
    assert env("mx", virus_scanner=place)["VIRUS_SCANNER"] == place


@pytest.mark.parametrize(
    "wrong",
    [
        *({"virus_scanner": place} for place in ("clamd", "clamd:", "av:3310", "clamd:a b")),
        *({"spam_scanner": place} for place in ("rspamd:spam", "http://spam", "clamd:av")),
        {"scanner_down": "never"},
    ],
)
def test_what_is_no_scanner(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        settings(**wrong)


def test_host_that_is_also_a_mail_domain_is_not_local() -> None:
    files = render.control_tree(settings(hostname="example.org"), ["example.org"])
    locals_ = files["locals"].content.decode().splitlines()
    assert all(line.startswith("#") for line in locals_)
    assert files["rcpthosts"].content == b"example.org\n"


def test_locals_and_rcpthosts_always_exist() -> None:
    """Without locals the host's name would be local, without rcpthosts we would relay."""
    for hostname, domains in (("a.org", ["a.org"]), ("mail.a.org", [])):
        files = render.control_tree(settings(hostname=hostname, domains="a.org"), domains)
        assert {"locals", "rcpthosts"} <= files.keys()


def test_routes_are_for_qmail_remote_only() -> None:
    files = render.control_tree(settings(smtproutes=":relay user secret,a.org:b.org"), [])
    assert files["smtproutes"].content == b":relay user secret\na.org:b.org\n"
    assert files["smtproutes"].mode == 0o640


def test_domain_files_are_those_of_the_whole_tree() -> None:
    domains = ["example.org", "another.example"]
    whole = render.control_tree(settings(), domains)
    assert render.domain_tree("mail.example.org", domains) == {
        name: whole[name] for name in render.DOMAIN_FILES
    }
