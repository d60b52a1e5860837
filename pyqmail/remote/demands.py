"""What TLS has to be like, server by server: control/tlsdestinations, DANE, MTA-STS.

DANE goes before MTA-STS (RFC 8461, 2): where a server has TLSA records that can be
checked, nothing but them counts.
"""

from pyqmail.remote import dane, mtasts, mtastscache, policy, report, resolve, tls
from pyqmail.remote.addresses import Candidate
from pyqmail.remote.dane import Tlsa
from pyqmail.remote.policy import Level, Policy
from pyqmail.remote.report import NextHost
from pyqmail.remote.resolve import Resolver
from pyqmail.remote.tls import Demand

FETCH_SECONDS = 30.0
FETCH_ADDRESSES = 4  # of the policy host, that are tried


def by_policy(wanted: Policy, domain: bytes, host: bytes) -> Demand:
    """Return what tlsdestinations alone demands of a server."""
    names = policy.expected_names(wanted, domain, host)
    return Demand(wanted.level, names, host, source="tlsdestinations")


class Demands:
    """What TLS with the servers of one domain has to be like; looked up once per delivery."""

    def __init__(self, domain: bytes, wanted: Policy, resolver: Resolver, directory: str) -> None:
        """Look nothing up yet.

        Args:
            domain: the recipient's.
            wanted: by tlsdestinations.
            resolver: for the rest.
            directory: of MTA-STS policies; empty: there are none.
        """
        self._domain = domain
        self._wanted = wanted
        self._resolver = resolver
        self._directory = directory
        self._records: dict[bytes, list[Tlsa]] = {}
        self._sts: mtasts.Policy | None = None
        self._sts_is_known = False

    def of(self, server: Candidate) -> Demand:
        """Return what is demanded of one server.

        Raises:
            NextHost: the server must not get the mail, or there is no telling.
        """
        own = by_policy(self._wanted, self._domain, server.host)
        if not self._wanted.is_floor:
            return own
        base, records = self._tlsa(server)
        usable = dane.usable(records, chains=tls.CHAINS)
        if usable:
            names = tuple(name.lower() for name in (base, server.host, self._domain))
            return Demand(Level.REQUIRE, names, base, usable, "dane")
        sts = self._policy()
        if sts is not None and sts.mode is mtasts.Mode.ENFORCE:
            if not sts.allows(server.host):
                raise NextHost(report.NOT_IN_POLICY + b"\n\0")
            return Demand(Level.VERIFY, (server.host.lower(),), server.host, source="mta-sts")
        # Records that nobody can check still say that there is TLS (RFC 7672, 2.2).
        return own._replace(level=Level.REQUIRE) if records else own

    def _tlsa(self, server: Candidate) -> tuple[bytes, list[Tlsa]]:
        """Return the TLSA records of a server, and the name that they are below."""
        for base in server.bases:
            if base not in self._records:
                try:
                    self._records[base] = self._resolver.tlsa(b"_25._tcp." + base)
                except resolve.TroubleError as error:
                    # Perhaps somebody suppresses them.
                    raise NextHost(report.NO_TLSA + b"\n\0") from error
            if self._records[base]:
                return base, self._records[base]
        return b"", []

    def _policy(self) -> mtasts.Policy | None:
        if not self._sts_is_known and self._directory:
            domain = self._domain.lower()
            try:
                live = mtasts.parse_record(self._resolver.texts(b"_mta-sts." + domain))
            except resolve.TroubleError:
                live = None
            self._sts = mtastscache.find(self._directory, domain, live, self._fetch)
        self._sts_is_known = True
        return self._sts

    def _fetch(self) -> bytes:
        """Return the text of the domain's policy.

        Raises:
            FetchError: it cannot be had.
        """
        from pyqmail.remote import https  # only here: seldom needed

        host = b"mta-sts." + self._domain.lower()
        try:
            addresses = self._resolver.addresses(host).found[:FETCH_ADDRESSES]
            page = https.fetch(host, addresses, mtasts.PATH, mtasts.BODY_LIMIT, FETCH_SECONDS)
        except (resolve.NoSuchDomainError, resolve.TroubleError, https.HttpsError) as error:
            raise mtastscache.FetchError(str(error)) from error
        if page.kind != "text/plain":  # else users of a web server could put one there
            raise mtastscache.FetchError("not plain text")
        return page.body
