"""Settings: where they come from, which wins, and what is said about a wrong one."""

from pathlib import Path

import pytest

from appliance import settings_sources
from appliance.settings import Settings
from appliance.settings_sources import MASK, SettingsError, load

HOST = {"POSTERN_HOSTNAME": "mail.example.org"}


@pytest.fixture(autouse=True)
def no_file_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_sources, "DEFAULT_CONFIG", str(tmp_path / "none.toml"))


def resolved(**variables: str) -> Settings:
    return load(HOST | {f"POSTERN_{name.upper()}": text for name, text in variables.items()})[0]


def refused(**variables: str) -> str:
    with pytest.raises(SettingsError) as raised:
        resolved(**variables)
    return str(raised.value)


def toml(path: Path, text: str) -> dict[str, str]:
    path.write_text(text)
    return {"POSTERN_CONFIG": str(path)}


def test_defaults_are_a_whole_server() -> None:
    chosen = resolved()
    assert chosen.hostname == "mail.example.org"
    assert chosen.domains == ("example.org",)
    assert chosen.active == ("mx", "submission", "submissions", "pop3", "pop3s", "queue")
    assert chosen.port("mx") == 25


@pytest.mark.parametrize(
    ("hostname", "domain"), [("mail.example.org", "example.org"), ("example.org", "example.org")]
)
def test_domain_comes_from_the_host_name(hostname: str, domain: str) -> None:
    assert resolved(hostname=hostname).domains == (domain,)


def test_container_host_name_is_used_when_it_is_a_full_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "mx.example.net")
    assert load({}).settings.hostname == "mx.example.net"


def test_missing_host_name_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "3f2a9c")
    with pytest.raises(SettingsError) as raised:
        load({})
    assert str(raised.value).startswith("POSTERN_HOSTNAME: not set")
    assert "\n" not in str(raised.value)


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    env = HOST | toml(tmp_path / "p.toml", 'grace = 20\ndatabytes = "1M"\n')
    found = load(env | {"POSTERN_GRACE": "5"})
    assert (found.settings.grace, found.settings.databytes) == (5, 1 << 20)
    assert found.places["grace"] == "POSTERN_GRACE"
    assert found.places["databytes"] == str(tmp_path / "p.toml")


def test_toml_takes_its_own_types(tmp_path: Path) -> None:
    text = 'domains = ["a.org", "b.org"]\ntls = false\nports = {mx = 2525}\nservices = ["mx"]\n'
    chosen = load(HOST | toml(tmp_path / "p.toml", text)).settings
    assert (chosen.domains, chosen.tls, chosen.port("mx")) == (("a.org", "b.org"), False, 2525)


def test_named_toml_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="POSTERN_CONFIG: no file"):
        load(HOST | {"POSTERN_CONFIG": str(tmp_path / "none")})


@pytest.mark.parametrize("text", ["grace = ", "\xff", "[grace"])
def test_broken_toml_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match=r"p\.toml: not TOML"):
        load(HOST | {"POSTERN_CONFIG": str(tmp_path / "p.toml")})


def test_unknown_name_in_toml_gets_a_hint(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="gracee: no such setting; did you mean grace"):
        load(HOST | toml(tmp_path / "p.toml", "gracee = 5"))


def test_value_from_a_file_loses_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(":relay.example.org:587 user secret\n")
    chosen = resolved(smtproutes_file=str(tmp_path / "secret"))
    assert chosen.smtproutes == (":relay.example.org:587 user secret",)


def test_missing_value_file_names_variable_and_file(tmp_path: Path) -> None:
    told = refused(smtproutes_file=str(tmp_path / "none"))
    assert told == f"POSTERN_SMTPROUTES_FILE: {tmp_path}/none: No such file or directory"


def test_path_given_as_file_variable_is_the_path_itself(tmp_path: Path) -> None:
    chosen = resolved(tls_cert_file="/run/secrets/cert", tls_key_file="/run/secrets/key")
    assert (chosen.tls_cert, chosen.tls_key) == ("/run/secrets/cert", "/run/secrets/key")


def test_setting_given_twice_is_refused() -> None:
    assert "given twice" in refused(tls_cert="/a", tls_cert_file="/b", tls_key="/c")


def test_empty_variable_counts_as_not_set() -> None:
    assert resolved(domains="", grace="").grace == 8


def test_unknown_variable_is_refused_with_a_hint() -> None:
    assert refused(hostnam="x") == (
        "POSTERN_HOSTNAM: no such setting; did you mean POSTERN_HOSTNAME?"
    )
    assert "did you mean" not in refused(qqqqqqqqqq="x")


def test_variables_of_a_kubernetes_service_named_postern_are_no_settings() -> None:
    links = {
        "POSTERN_SERVICE_HOST": "10.0.0.1",
        "POSTERN_SERVICE_PORT": "25",
        "POSTERN_SERVICE_PORT_MX": "25",
        "POSTERN_PORT": "tcp://10.0.0.1:25",
        "POSTERN_PORT_25_TCP": "tcp://10.0.0.1:25",
        "POSTERN_PORT_25_TCP_ADDR": "10.0.0.1",
        "POSTERN_MX_SERVICE_HOST": "10.0.0.1",
        "POSTERN_MX_PORT": "tcp://10.0.0.1:25",
    }
    assert load(HOST | links).settings.hostname == "mail.example.org"
    with pytest.raises(SettingsError, match="POSTERN_PORT: no such setting"):
        load(HOST | {"POSTERN_PORT": "25"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hostname", "mail"),
        ("hostname", "mail.example.org/x"),
        ("domains", "example.org,-x"),
        ("services", "mx,imap"),
        ("services", ","),
        ("ports", "mx"),
        ("ports", "imap=143"),
        ("ports", "mx=0"),
        ("ports", "mx=587"),
        ("bind", "eth0"),
        ("tls", "maybe"),
        ("tls_cert", "cert.pem"),
        ("postmaster", "nobody"),
        ("databytes", "much"),
        ("max_connections", "0"),
        ("smtp_timeout", "1"),
        ("auth_tries", "0"),
        ("checkpassword", "'"),
        ("sender_check", "2"),
        ("concurrency_local", "121"),
        ("concurrency_remote", "121"),
        ("queue_lifetime", "forever"),
        ("sending_limit", "-1"),
        ("mailer", "sendmail"),
        ("log_format", "xml"),
        ("grace", "0"),
    ],
)
def test_wrong_value_is_one_line_with_name_value_and_what_it_takes(name: str, text: str) -> None:
    told = refused(**{name: text})
    assert told.startswith(f"POSTERN_{name.upper()}: got {text!r} (")
    assert "; it takes " in told
    assert "\n" not in told


def test_each_wrong_setting_has_its_line() -> None:
    assert len(refused(grace="x", bind="y").splitlines()) == 2


def test_wrong_secret_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(":relay hunter2 has three words")
    told = refused(smtproutes_file=str(tmp_path / "secret"))
    assert MASK in told
    assert "hunter2" not in told


def test_certificate_without_key_is_refused() -> None:
    assert refused(tls_cert="/cert.pem") == "POSTERN_TLS_KEY: not set, though POSTERN_TLS_CERT is"
    assert refused(tls_key="/key.pem") == "POSTERN_TLS_CERT: not set, though POSTERN_TLS_KEY is"


def test_without_tls_nothing_runs_that_asks_for_a_password() -> None:
    chosen = resolved(tls="off")
    assert chosen.active == ("mx", "queue")
    assert chosen.refused == ("submission", "submissions", "pop3", "pop3s")


def test_services_have_one_order_and_no_repetition() -> None:
    assert resolved(services="queue mx,mx").services == ("mx", "queue")


@pytest.mark.parametrize("name", ["guard_allow", "proxy_networks"])
def test_networks_are_checked_and_named(name: str) -> None:
    chosen = resolved(**{name: "192.0.2.0/24, fd00::1 192.0.2.0/24"})
    assert getattr(chosen, name) == ("192.0.2.0/24", "fd00::1/128")
    assert f"POSTERN_{name.upper()}" in refused(**{name: "192.0.2.1/24"})


def test_proxy_networks_leave_the_health_check_alone() -> None:
    assert "health check" in refused(proxy_networks="127.0.0.0/8")
    assert resolved(guard_allow="127.0.0.0/8").guard_allow == ("127.0.0.0/8",)


def test_proxy_networks_are_for_our_own_server() -> None:
    assert "POSTERN_PROXY_NETWORKS" in refused(proxy_networks="10.0.0.1", ucspi="s6")
