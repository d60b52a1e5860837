"""TLSA records against certificates, and chains up to an authority that they name."""

import datetime
import hashlib
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from pyqmail.remote import dane, danechain
from pyqmail.remote.dane import Tlsa

NOW = datetime.datetime(2026, 6, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
DER = serialization.Encoding.DER


class Made:
    """A certificate and its key."""

    def __init__(
        self,
        name: str,
        issuer: "Made | None" = None,
        *,
        ca: bool = False,
        path_length: int | None = None,
        signs: bool = True,
        purpose: x509.ObjectIdentifier | None = None,
        constrained: bool = False,
        age: datetime.timedelta = DAY,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        above = issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(above.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - age)
            .not_valid_after(NOW - age + 10 * DAY)
        )
        if ca:
            builder = builder.add_extension(x509.BasicConstraints(True, path_length), True)
            usage = x509.KeyUsage(True, False, False, False, False, signs, True, False, False)
            builder = builder.add_extension(usage, True)
        else:
            names = x509.SubjectAlternativeName([x509.DNSName(name)])
            builder = builder.add_extension(names, False)
        if purpose is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), False)
        if constrained:
            names_allowed = x509.NameConstraints([x509.DNSName("example.org")], None)
            builder = builder.add_extension(names_allowed, True)
        self.certificate = builder.sign(above.key, hashes.SHA256())
        self.der = self.certificate.public_bytes(DER)
        self.spki = self.key.public_key().public_bytes(
            DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )


@pytest.fixture(scope="module")
def root() -> Made:
    return Made("root", ca=True)


@pytest.fixture(scope="module")
def middle(root: Made) -> Made:
    return Made("middle", root, ca=True, path_length=0)


@pytest.fixture(scope="module")
def server(middle: Made) -> Made:
    return Made("mx.example.net", middle, purpose=ExtendedKeyUsageOID.SERVER_AUTH)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# --- records -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "good"),
    [
        (Tlsa(3, 1, 1, b"x" * 32), True),
        (Tlsa(3, 0, 2, b"x" * 64), True),
        (Tlsa(3, 0, 0, b"x"), True),
        (Tlsa(3, 0, 0, b""), False),
        (Tlsa(2, 1, 1, b"x" * 32), True),
        (Tlsa(3, 1, 1, b"x" * 31), False),
        (Tlsa(3, 1, 2, b"x" * 32), False),
        (Tlsa(3, 2, 1, b"x" * 32), False),
        (Tlsa(3, 1, 3, b"x" * 32), False),
        (Tlsa(0, 1, 1, b"x" * 32), False),
        (Tlsa(1, 1, 1, b"x" * 32), False),
        (Tlsa(255, 1, 1, b"x" * 32), False),
    ],
)
def test_which_records_can_be_checked(record: Tlsa, good: bool) -> None:
    assert dane.usable([record], chains=True) == ((record,) if good else ())


def test_without_chains_no_authority_can_be_checked() -> None:
    records = [Tlsa(2, 1, 1, b"x" * 32), Tlsa(3, 1, 1, b"y" * 32)]
    assert dane.usable(records, chains=False) == (records[1],)


def test_every_selector_and_matching_type(server: Made, root: Made) -> None:
    for selector, selected in ((0, server.der), (1, server.spki)):
        for matching, data in (
            (0, selected),
            (1, sha256(selected)),
            (2, hashlib.sha512(selected).digest()),
        ):
            record = Tlsa(3, selector, matching, data)
            assert dane.matches(record, server.der)
            assert not dane.matches(record, root.der)


def test_the_key_is_cut_out_as_it_is(server: Made, root: Made) -> None:
    assert dane.public_key(server.der) == server.spki
    assert dane.public_key(root.der) == root.spki


@given(st.binary(max_size=200))
def test_what_is_no_certificate_has_no_key(data: bytes) -> None:
    with pytest.raises(ValueError):
        dane.public_key(data)
    assert not dane.matches(Tlsa(3, 1, 0, b"x"), data)


def test_a_certificate_that_is_cut_short_has_no_key(server: Made) -> None:
    for size in range(len(server.der)):
        with pytest.raises(ValueError):
            dane.public_key(server.der[:size])


# --- chains --------------------------------------------------------------------------


def by_key(made: Made, usage: int = 2) -> tuple[Tlsa, ...]:
    return (Tlsa(usage, 1, 1, sha256(made.spki)),)


NAMES = {"subjectAltName": (("DNS", "mx.example.net"),)}


def test_an_authority_anywhere_above_will_do(server: Made, middle: Made, root: Made) -> None:
    chain = [server.der, middle.der, root.der]
    assert danechain.check(chain, by_key(middle), NOW) == NAMES
    assert danechain.check(chain, by_key(root), NOW) == NAMES
    assert danechain.check([chain[0], chain[2], chain[1]], by_key(root), NOW) == NAMES


def test_an_authority_that_is_in_its_record_may_be_left_out(
    server: Made, middle: Made, root: Made
) -> None:
    chain = [server.der, middle.der]
    assert danechain.check(chain, (Tlsa(2, 0, 0, root.der),), NOW) == NAMES
    with pytest.raises(danechain.ChainError):
        danechain.check(chain, by_key(root), NOW)


def test_the_servers_own_certificate_is_no_authority(server: Made, middle: Made) -> None:
    with pytest.raises(danechain.ChainError):
        danechain.check([server.der, middle.der], by_key(server), NOW)
    with pytest.raises(danechain.ChainError):
        danechain.check([server.der, middle.der], by_key(middle, usage=3), NOW)


def test_an_authority_that_did_not_sign_does_not_count(server: Made, middle: Made) -> None:
    stranger = Made("root", ca=True)
    namesake = Made("middle", stranger, ca=True)
    for above in (stranger, namesake):
        with pytest.raises(danechain.ChainError):
            danechain.check([server.der, middle.der, above.der], by_key(above), NOW)


Wrong = Callable[[Made], list[Made]]


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda root: [Made("mx", root, age=11 * DAY)], id="expired"),
        pytest.param(lambda root: [Made("mx", root, age=-DAY)], id="not yet valid"),
        pytest.param(
            lambda root: [Made("mx", root, purpose=ExtendedKeyUsageOID.CLIENT_AUTH)],
            id="not a server's",
        ),
        pytest.param(lambda root: [Made("mx", m := Made("m", root)), m], id="not an authority"),
        pytest.param(
            lambda root: [Made("mx", m := Made("m", root, ca=True, signs=False)), m],
            id="may not sign",
        ),
        pytest.param(
            lambda root: [Made("mx", m := Made("m", root, ca=True, age=11 * DAY)), m],
            id="authority expired",
        ),
        pytest.param(
            lambda root: [Made("mx", m := Made("m", root, ca=True, constrained=True)), m],
            id="for some names only",
        ),
        pytest.param(
            lambda root: [
                Made("mx", b := Made("b", a := Made("a", root, ca=True, path_length=0), ca=True)),
                b,
                a,
            ],
            id="path too long",
        ),
    ],
)
def test_chains_that_are_not_right(root: Made, wrong: Wrong) -> None:
    chain = [made.der for made in (*wrong(root), root)]
    with pytest.raises(danechain.ChainError):
        danechain.check(chain, by_key(root), NOW)


@pytest.mark.parametrize("chain", [[], [b""], [b"no certificate"]])
def test_no_chain_at_all(chain: list[bytes], root: Made) -> None:
    with pytest.raises(danechain.ChainError):
        danechain.check(chain, by_key(root), NOW)
