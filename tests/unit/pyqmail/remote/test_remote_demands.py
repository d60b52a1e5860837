"""What decides on a server's TLS: tlsdestinations, DANE, MTA-STS, and which goes first."""

import hashlib
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pyqmail.remote import hosts, https, resolve, routes, sender, settings, tls
from pyqmail.remote.addresses import Candidate, Exchanger
from pyqmail.remote.dane import Tlsa
from pyqmail.remote.demands import Demands
from pyqmail.remote.https import HttpsError, Page
from pyqmail.remote.policy import Level, Policy
from pyqmail.remote.report import NextHost
from pyqmail.remote.resolve import Addresses, Exchangers, Servers, TroubleError

Sink = Any  # it is in conftest.py
Remote = Callable[..., bytes]
ADDRESS = ipaddress.ip_address("127.0.0.1")
KEY = Tlsa(3, 1, 1, b"x" * 32)
ENFORCE = b"version: STSv1\nmode: enforce\nmx: mx.example.net\nmax_age: 86400\n"
MAY = Policy(Level.MAY)


class Dns:
    """Answers from tables; a name that is not there does not exist, ``None`` is trouble."""

    def __init__(self, servers: object = None) -> None:
        self.asked: list[bytes] = []

    txt: ClassVar[dict[bytes, list[bytes] | None]] = {}
    tlsas: ClassVar[dict[bytes, list[Tlsa] | None]] = {}
    secure = True

    def exchangers(self, domain: bytes) -> Exchangers:
        return Exchangers([Exchanger(10, b"mx.example.net")], self.secure)

    def addresses(self, host: bytes) -> Addresses:
        return Addresses([ADDRESS], self.secure, host if self.secure else b"")

    def texts(self, name: bytes) -> list[bytes]:
        return self._look(self.txt, name)

    def tlsa(self, name: bytes) -> list[Tlsa]:
        return self._look(self.tlsas, name)

    def _look(self, table: dict[bytes, Any], name: bytes) -> Any:
        self.asked.append(name)
        found = table.get(name, [])
        if found is None:
            raise TroubleError
        return found


class Web:
    """Stands where https.fetch does."""

    def __init__(self) -> None:
        self.page: Page | None = Page("text/plain", ENFORCE)
        self.asked: list[bytes] = []

    def fetch(self, host: bytes, found: object, path: bytes, limit: int, seconds: float) -> Page:
        self.asked.append(host + path)
        if self.page is None:
            raise HttpsError("no")
        return self.page


@pytest.fixture
def dns() -> type[Dns]:
    return type("Tables", (Dns,), {"txt": {}, "tlsas": {}})


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Web:
    made = Web()
    monkeypatch.setattr(https, "fetch", made.fetch)
    return made


Of = Callable[..., tls.Demand]


@pytest.fixture
def of(dns: type[Dns], web: Web, tmp_path: Path) -> Of:
    def ask(
        host: bytes = b"mx.example.net",
        wanted: Policy = MAY,
        bases: tuple[bytes, ...] = (b"mx.example.net",),
        directory: str = str(tmp_path),
    ) -> tls.Demand:
        resolver: Any = dns()
        made = Demands(b"Example.net", wanted, resolver, directory)
        return made.of(Candidate(10, host, ADDRESS, bases))

    return ask


def with_sts(dns: type[Dns]) -> None:
    dns.txt[b"_mta-sts.example.net"] = [b"v=STSv1; id=1;"]


def test_without_anything_tls_is_opportunistic(of: Of, web: Web) -> None:
    assert of().level is Level.MAY
    assert web.asked == []


# --- DANE ----------------------------------------------------------------------------


def test_records_are_demanded(of: Of, dns: type[Dns]) -> None:
    dns.tlsas[b"_25._tcp.mx.example.net"] = [KEY]
    demand = of()
    assert demand.mandatory
    assert demand.records == (KEY,)
    assert demand.names == (b"mx.example.net", b"mx.example.net", b"example.net")
    assert demand.server_name == b"mx.example.net"


def test_the_name_behind_an_alias_goes_first(of: Of, dns: type[Dns]) -> None:
    dns.tlsas = {b"_25._tcp.real.example": [KEY], b"_25._tcp.mx.example.net": [KEY, KEY]}
    assert of(bases=(b"real.example", b"mx.example.net")).server_name == b"real.example"
    dns.tlsas[b"_25._tcp.real.example"] = []
    assert of(bases=(b"real.example", b"mx.example.net")).server_name == b"mx.example.net"


def test_where_the_dns_is_not_secure_nobody_asks_for_records(of: Of, dns: type[Dns]) -> None:
    dns.tlsas[b"_25._tcp.mx.example.net"] = [KEY]
    assert of(bases=()).level is Level.MAY


def test_records_that_nobody_can_check_demand_tls(of: Of, dns: type[Dns]) -> None:
    dns.tlsas[b"_25._tcp.mx.example.net"] = [KEY._replace(usage=1)]
    demand = of()
    assert demand.level is Level.REQUIRE
    assert demand.records == ()


def test_records_that_cannot_be_looked_up_pass_the_server_over(of: Of, dns: type[Dns]) -> None:
    dns.tlsas[b"_25._tcp.mx.example.net"] = None
    with pytest.raises(NextHost) as reason:
        of()
    assert reason.value.report.startswith(b"ZSorry, I couldn't look up what its TLS")


def test_records_go_before_the_policy(of: Of, dns: type[Dns], web: Web) -> None:
    with_sts(dns)
    dns.tlsas[b"_25._tcp.elsewhere.example"] = [KEY]
    assert of(b"elsewhere.example", bases=(b"elsewhere.example",)).records == (KEY,)
    assert web.asked == []


# --- MTA-STS -------------------------------------------------------------------------


def test_a_policy_is_enforced(of: Of, dns: type[Dns], web: Web) -> None:
    with_sts(dns)
    demand = of(b"MX.example.net", bases=())
    assert demand.level is Level.VERIFY
    assert demand.names == (b"mx.example.net",)
    assert demand.source == "mta-sts"
    assert web.asked == [b"mta-sts.example.net/.well-known/mta-sts.txt"]


def test_a_server_that_the_policy_does_not_list_is_passed_over(of: Of, dns: type[Dns]) -> None:
    with_sts(dns)
    with pytest.raises(NextHost) as reason:
        of(b"evil.example", bases=())
    assert reason.value.report.startswith(b"ZSorry, the MTA-STS policy of that domain")


@pytest.mark.parametrize("mode", [b"testing", b"none"])
def test_a_policy_that_is_not_enforced_changes_nothing(
    of: Of, dns: type[Dns], web: Web, mode: bytes
) -> None:
    with_sts(dns)
    web.page = Page("text/plain", ENFORCE.replace(b"enforce", mode))
    assert of(b"evil.example").level is Level.MAY


@pytest.mark.parametrize("page", [None, Page("text/html", ENFORCE), Page("text/plain", b"x")])
def test_a_policy_that_cannot_be_had_is_none(
    of: Of, dns: type[Dns], web: Web, page: Page | None
) -> None:
    with_sts(dns)
    web.page = page
    assert of(b"evil.example").level is Level.MAY


def test_a_policy_stays_when_the_dns_is_silent(of: Of, dns: type[Dns], web: Web) -> None:
    with_sts(dns)
    of()
    web.page = None
    dns.txt[b"_mta-sts.example.net"] = None
    assert of().level is Level.VERIFY
    del dns.txt[b"_mta-sts.example.net"]
    assert of().level is Level.VERIFY


def test_policies_can_be_switched_off(of: Of, dns: type[Dns], web: Web) -> None:
    with_sts(dns)
    assert of(directory="").level is Level.MAY
    assert web.asked == []


def test_a_policy_goes_with_records_that_nobody_can_check(of: Of, dns: type[Dns]) -> None:
    with_sts(dns)
    dns.tlsas[b"_25._tcp.mx.example.net"] = [KEY._replace(usage=0)]
    assert of().level is Level.VERIFY


# --- tlsdestinations -----------------------------------------------------------------


@pytest.mark.parametrize("level", list(Level))
@pytest.mark.parametrize("firm", [False, True])
def test_a_line_for_many_domains_is_a_floor_and_one_for_this_is_all(
    of: Of, dns: type[Dns], web: Web, level: Level, firm: bool
) -> None:
    with_sts(dns)
    demand = of(wanted=Policy(level, firm=firm))
    raised = not firm and level in (Level.MAY, Level.REQUIRE)
    assert demand.source == ("mta-sts" if raised else "tlsdestinations")
    assert demand.level is (Level.VERIFY if raised else level)
    assert bool(web.asked) is raised


# --- over the wire -------------------------------------------------------------------


@pytest.fixture
def world(
    monkeypatch: pytest.MonkeyPatch, home: Path, secure_sink: Sink, dns: type[Dns], web: Web
) -> type[Dns]:
    """The sink as mx.example.net, with a DNS and a web in memory."""
    (home / "control/smtproutes").unlink()
    (home / "policies").mkdir()
    (home / "control/mtastscache").write_text("policies\n")
    monkeypatch.setattr(sender, "Resolver", dns)
    monkeypatch.setattr(hosts, "is_local", lambda address: False)
    monkeypatch.setattr(routes, "SMTP_PORT", secure_sink.port)
    return dns


def digest(certificate: Path) -> bytes:
    return hashlib.sha256(
        ssl.PEM_cert_to_DER_cert(certificate.read_text().split("-----BEGIN P")[0])
    ).digest()


@pytest.mark.parametrize("good", [True, False])
def test_mail_by_dane(
    remote: Remote, secure_sink: Sink, world: type[Dns], certificate: Path, good: bool
) -> None:
    data = digest(certificate) if good else b"x" * 32
    world.tlsas[b"_25._tcp.mx.example.net"] = [Tlsa(3, 0, 1, b"y" * 32), Tlsa(3, 0, 1, data)]
    if good:
        assert remote().startswith(b"r\0K")
    else:
        assert remote() == (
            b"ZConnected to 127.0.0.1 but TLS failed: "
            b"certificate is not the one in the TLSA records (#4.7.5).\n\0"
        )
    assert len(secure_sink.messages) == good


@pytest.mark.skipif(not tls.CHAINS, reason="this Python does not tell of chains")
def test_a_server_is_no_authority_for_itself(
    remote: Remote, secure_sink: Sink, world: type[Dns], certificate: Path
) -> None:
    world.tlsas[b"_25._tcp.mx.example.net"] = [Tlsa(2, 0, 1, digest(certificate))]
    assert remote().startswith(b"ZConnected to 127.0.0.1 but TLS failed: ")
    assert secure_sink.messages == []


def test_dane_needs_tls(remote: Remote, secure_sink: Sink, world: type[Dns]) -> None:
    secure_sink.context = None
    world.tlsas[b"_25._tcp.mx.example.net"] = [KEY]
    assert remote() == (
        b"ZConnected to 127.0.0.1 but TLS is required here and not offered (#4.7.0).\n\0"
    )


@pytest.mark.parametrize("trusted", [True, False])
def test_mail_by_mta_sts(
    remote: Remote,
    secure_sink: Sink,
    world: type[Dns],
    home: Path,
    certificate: Path,
    trusted: bool,
) -> None:
    with_sts(world)
    if trusted:
        (home / "control/tlsauthorities").write_text(f"{certificate}\n")
        assert remote().startswith(b"r\0K")
    else:
        assert remote() == (
            b"ZConnected to 127.0.0.1 but TLS failed: self-signed certificate (#4.7.5).\n\0"
        )
    assert len(secure_sink.messages) == trusted
    assert (home / "policies/example.net").exists()


def test_mail_is_held_back_when_no_server_is_in_the_policy(
    remote: Remote, secure_sink: Sink, world: type[Dns], web: Web
) -> None:
    with_sts(world)
    web.page = Page("text/plain", ENFORCE.replace(b"mx.example.net", b"other.example.net"))
    assert remote() == (
        b"ZSorry, the MTA-STS policy of that domain does not list its mail exchanger. (#4.7.0)\n\0"
    )
    assert secure_sink.records == []


# --- whom to trust -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "trusted"),
    [
        (b"nameserver 127.0.0.1\noptions edns0 trust-ad\n", True),
        (b"options ndots:1\noptions trust-ad", True),
        (b"nameserver 127.0.0.1\n", False),
        (b"#options trust-ad\n", False),
        (b"search trust-ad\n", False),
        (b"", False),
    ],
)
def test_trust_in_the_resolver(text: bytes, trusted: bool) -> None:
    assert resolve.says_trust_ad(text) is trusted


@pytest.mark.parametrize(
    ("word", "named", "system", "servers"),
    [
        ("", "", True, Servers((), True)),
        ("auto", "", True, Servers((), True)),
        ("auto", "", False, Servers((), False)),
        ("auto", "192.0.2.53", True, Servers(("192.0.2.53",), False)),
        ("on", "192.0.2.53\n2001:db8::53", False, Servers(("192.0.2.53", "2001:db8::53"), True)),
        ("on", "", False, Servers((), True)),
        ("off", "", True, Servers((), False)),
    ],
)
def test_whom_to_ask_and_whether_to_trust(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    word: str,
    named: str,
    system: bool,
    servers: Servers,
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(resolve, "system_trusts_ad", lambda: system)
    (home / "control/smtproutes").unlink()
    for name, text in (("dane", word), ("resolvers", named)):
        if text:
            (home / "control" / name).write_text(text + "\n")
    assert settings.read(b"example.net", {"QMAIL_HOME": str(home)}).servers == servers
