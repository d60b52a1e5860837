"""What a person can set: one model, from environment, files and postern.toml.

A setting ``x`` is the environment variable ``POSTERN_X``; or ``POSTERN_X_FILE``, the
name of a file that holds the value; or ``x`` in postern.toml, whose place is
``POSTERN_CONFIG``. The environment wins. See settings_sources for how they are read.
"""

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from appliance import values
from appliance.setting import Seconds, Switch
from appliance.setting import setting as _setting
from appliance.settings_authentication import AuthenticationSettings
from appliance.settings_door import DoorSettings
from appliance.settings_metrics import MetricsSettings
from appliance.settings_outbound import OutboundSettings
from appliance.settings_scanning import ScanningSettings
from appliance.settings_srs import SrsSettings

ServiceName = Literal["mx", "submission", "submissions", "pop3", "pop3s", "queue"]
SERVICES: tuple[ServiceName, ...] = get_args(ServiceName)
PORTS = {"mx": 25, "submission": 587, "submissions": 465, "pop3": 110, "pop3s": 995}
AUTHENTICATED = ("submission", "submissions", "pop3", "pop3s")
IMPLICIT_TLS = ("submissions", "pop3s")
SUBMISSION = ("submission", "submissions")

Domains = Annotated[tuple[str, ...], BeforeValidator(values.words)]
Lines = Annotated[tuple[str, ...], BeforeValidator(values.lines)]
Command = Annotated[tuple[str, ...], BeforeValidator(values.command)]
Networks = Annotated[tuple[str, ...], BeforeValidator(values.words)]
Services = Annotated[tuple[ServiceName, ...], BeforeValidator(values.words)]
Ports = Annotated[
    dict[str, Annotated[int, Field(ge=1, le=65535)]], BeforeValidator(values.numbers_by_name)
]
Bytes = Annotated[int, BeforeValidator(values.size), Field(ge=0)]


class Settings(
    AuthenticationSettings,
    OutboundSettings,
    SrsSettings,
    DoorSettings,
    ScanningSettings,
    MetricsSettings,
):
    """Every setting of the appliance, checked and complete."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, validate_default=False)

    hostname: str = _setting(
        "",
        "a full host name such as mail.example.org",
        "The name of this host in greetings, in headers and in a self-signed certificate.",
        shown="the container's host name, when that has a dot",
    )
    domains: Domains = _setting(
        (),
        "domain names, with commas or blanks between them",
        "Domains to receive mail for; added to those of `postern domain add` at each start.",
        shown="`hostname` without its first label",
    )
    services: Services = _setting(
        SERVICES,
        "names out of " + ",".join(SERVICES),
        "The services to run, so that one image is a whole server or one role of several.",
    )
    ports: Ports = _setting(
        {},
        "service=port pairs such as mx=2525,pop3s=9995",
        "Ports inside the container that differ from the usual ones.",
    )
    bind: str = _setting(
        "0",
        "an IPv4 or IPv6 address, or 0 for all of both",
        "The address that the services listen on.",
    )
    tls: Switch = _setting(
        True,
        "on or off",
        "TLS. Off means no AUTH either: submission and POP3 are then not run at all.",
    )
    tls_cert: str = _setting(
        "",
        "the path of a PEM file: the certificate, then its chain",
        "The certificate. A replaced file is in use from the next connection on.",
        path=True,
        shown="a self-signed one, made at the first start",
    )
    tls_key: str = _setting(
        "",
        "the path of a PEM file: a private key without a passphrase",
        "The key of the certificate. Root must be able to read it.",
        path=True,
        shown="that of the self-signed certificate",
    )
    postmaster: str = _setting(
        "",
        "a mail address",
        "Where mail to postmaster, abuse, root and mailer-daemon goes, in every domain.",
        shown="/data/alias/Maildir, which nobody reads",
    )
    databytes: Bytes = _setting(
        50 << 20,
        "a number of bytes, also as 50M or 1G; 0 for no limit",
        "The largest message that is taken.",
        shown="50M",
    )
    max_connections: int = _setting(
        200,
        "a number of at least 1",
        "Connections at the same time, for each service.",
        ge=1,
        le=100000,
    )
    max_connections_per_address: int = _setting(
        50,
        "a number of at least 1",
        "Connections at the same time from one address, for each service.",
        ge=1,
        le=100000,
    )
    sessions_per_process: int = _setting(
        100,
        "a number of at least 1; 1 gives every connection processes of its own",
        "How many connections on port 25 one process serves, one after the other, before it "
        "is replaced. Whoever logs in always has processes of his own.",
        ge=1,
        le=100000,
    )
    sessions_per_engine: int = _setting(
        1,
        "a number of at least 1",
        "How many connections on the ports for users one process of TLS serves, one after the "
        "other. More is cheaper and less isolated: see [security.md](security.md).",
        ge=1,
        le=100000,
    )
    smtp_timeout: Seconds = _setting(
        300,
        "a number of seconds from 10 on, also as 5m",
        "How long an SMTP session may be idle (RFC 5321 asks for five minutes).",
        shown="5m",
        ge=10,
    )
    pop3_timeout: Seconds = _setting(
        600,
        "a number of seconds from 10 on, also as 10m",
        "How long a POP3 session may be idle before it is authenticated.",
        shown="10m",
        ge=10,
    )
    auth_tries: int | None = _setting(
        None,
        "a number from 1 to 100",
        "Wrong passwords in one connection before it is closed.",
        shown="5 in SMTP, 1 in POP3",
        ge=1,
        le=100,
    )
    guard_allow: Networks = _setting(
        (),
        "addresses and networks such as 192.0.2.0/24,2001:db8::1",
        "Who is neither delayed nor refused after wrong passwords. Not a network that "
        "strangers come from.",
    )
    proxy_networks: Networks = _setting(
        (),
        "addresses and networks such as 10.0.0.5,fd00::/64",
        "Proxies that begin every connection with a PROXY header (version 1 or 2), which "
        "tells who the client is. A connection from there without one is closed.",
    )
    checkpassword: Command = _setting(
        ("checkpassword",),
        "a command line",
        "The program that checks passwords, with checkpassword's interface; for LDAP, PAM and "
        "SQL see [checkpassword.md](checkpassword.md).",
        shown="checkpassword (the accounts of `postern user`)",
    )
    sender_check: Switch = _setting(
        True,
        "on or off",
        "Submitted mail must come from an address of the account that submits it.",
    )
    smtproutes: Lines = _setting(
        (),
        "lines like example.org:relay:port, with commas or line ends between them",
        "Where mail goes instead of to its MX, as in qmail's control/smtproutes: an empty "
        "domain stands for all; `:relay:587 user password` logs in.",
        secret=True,
    )
    concurrency_local: int = _setting(
        10, "a number from 0 to 120", "Local deliveries at the same time.", ge=0, le=120
    )
    concurrency_remote: int = _setting(
        20, "a number from 0 to 120", "Remote deliveries at the same time.", ge=0, le=120
    )
    queue_lifetime: Seconds = _setting(
        604800,
        "a number of seconds, also as 7d",
        "How long delivery is tried before a message bounces.",
        shown="7d",
        ge=0,
    )
    mailer: Literal["auto", "pyqmail", "netqmail"] = _setting(
        "auto",
        "auto, pyqmail or netqmail",
        "Which mailer is installed in /var/qmail; auto looks.",
    )
    ucspi: Literal["postern", "s6", "sslserver", "tcpserver"] = _setting(
        "postern",
        "postern, s6, sslserver or tcpserver",
        "The server that takes connections and starts TLS: `acceptserver`; or another that is "
        "in the image, see [ucspi.md](ucspi.md).",
    )
    log_format: Literal["text", "json"] = _setting(
        "text", "text or json", "How log lines look on standard output."
    )
    grace: Seconds = _setting(
        8,
        "a number of seconds from 1 on",
        "How long sessions and deliveries may go on after SIGTERM. Keep it below the stop "
        "timeout of the engine (docker: 10 seconds).",
        ge=1,
        le=3600,
    )

    @field_validator("hostname")
    @classmethod
    def _hostname(cls, value: str) -> str:
        return values.full_host_name(value)

    @field_validator("domains")
    @classmethod
    def _domains(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(values.domain, value)))

    @field_validator("services")
    @classmethod
    def _services(cls, value: tuple[ServiceName, ...]) -> tuple[ServiceName, ...]:
        if not value:
            raise ValueError("no service")
        return tuple(name for name in SERVICES if name in value)

    @field_validator("ports")
    @classmethod
    def _ports(cls, value: dict[str, int]) -> dict[str, int]:
        if unknown := sorted(set(value) - set(PORTS)):
            raise ValueError(f"no service {unknown[0]}")
        used = list((PORTS | value).values())
        if len(set(used)) != len(used):
            raise ValueError("two services on one port")
        return dict(sorted(value.items()))

    @field_validator("bind")
    @classmethod
    def _bind(cls, value: str) -> str:
        return values.bind_address(value)

    @field_validator("guard_allow", "proxy_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(map(values.network, value)))

    @field_validator("proxy_networks")
    @classmethod
    def _proxy_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(values.has_loopback(network) for network in value):
            raise ValueError("the health check comes from the loopback address, without a header")
        return value

    @field_validator("tls_cert", "tls_key")
    @classmethod
    def _path(cls, value: str) -> str:
        if not value.startswith("/") or "\n" in value:
            raise ValueError("no absolute path")
        return value

    @field_validator("postmaster")
    @classmethod
    def _postmaster(cls, value: str) -> str:
        return values.address(value)

    @field_validator("smtproutes")
    @classmethod
    def _smtproutes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(values.route, value))

    @model_validator(mode="after")
    def _key_with_certificate(self) -> "Settings":
        if bool(self.tls_cert) != bool(self.tls_key):
            missing = "tls_key" if self.tls_cert else "tls_cert"
            given = "tls_cert" if self.tls_cert else "tls_key"
            raise ValueError(f"{variable(missing)}: not set, though {variable(given)} is")
        return self

    @model_validator(mode="after")
    def _sslserver_with_tls(self) -> "Settings":
        if self.ucspi == "sslserver" and not self.tls:
            raise ValueError(f"{variable('ucspi')}: sslserver does not start without TLS")
        return self

    @model_validator(mode="after")
    def _proxies_with_our_server(self) -> "Settings":
        if self.proxy_networks and self.ucspi != "postern":
            raise ValueError(f"{variable('proxy_networks')}: {self.ucspi} knows no PROXY header")
        return self

    @model_validator(mode="after")
    def _metrics_apart(self) -> "Settings":
        if self.metrics and self.metrics.port in (PORTS | self.ports).values():
            raise ValueError(f"{variable('metrics_listen')}: the port of a mail service")
        return self

    @property
    def active(self) -> tuple[ServiceName, ...]:
        """The services that run: none without the TLS that it needs."""
        return tuple(s for s in self.services if s not in self.refused + self.impossible)

    @property
    def refused(self) -> tuple[ServiceName, ...]:
        """The services that were asked for and do not run, because TLS is off."""
        return tuple(s for s in self.services if not self.tls and s in AUTHENTICATED)

    @property
    def impossible(self) -> tuple[ServiceName, ...]:
        """The services that were asked for and that the server cannot serve: TLS at once."""
        lacking = self.tls and self.ucspi == "tcpserver"
        return tuple(s for s in self.services if lacking and s in IMPLICIT_TLS)

    def port(self, service: str) -> int:
        """Return the port of a service inside the container."""
        return self.ports.get(service, PORTS[service])


def names() -> list[str]:
    """Return every setting, those of the whole before those of one part of it."""
    parts = [name for base in Settings.__bases__ for name in base.__annotations__]
    return [name for name in Settings.model_fields if name not in parts] + parts


def extra(name: str) -> dict[str, Any]:
    """Return what ``_setting`` noted beside pydantic's own: takes, secret, path, shown."""
    noted = Settings.model_fields[name].json_schema_extra
    return dict(noted) if isinstance(noted, dict) else {}


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return "POSTERN_" + name.upper()
