"""The pool's certificate authority, and the certificates of managers and nodes (X.509, RFC 5280; ECDSA P-256).

A certificate has the pool's id as its organization, the role (`manager` or `node`) as its unit, and the node's name as
its common name. Pure: `now` goes in, PEM comes out.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lbmux.errors import LbmuxError

Role = Literal["manager", "node"]
CA_DAYS, CERTIFICATE_DAYS = 3650, 90
CLOCKS_DIFFER = timedelta(hours=1)
"""A certificate is valid from this long before it was made, since clocks of machines differ."""


class CertificateError(LbmuxError):
    """A certificate or a request for one that cannot be used."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key, in PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Subject:
    """The subject of a certificate: the pool, role and name of its owner."""

    pool: str
    role: str
    name: str


def new_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def new_authority(pool: str, now: datetime) -> KeyPair:
    """Make a CA whose certificate signs itself and may sign no other CA."""
    key, name = new_key(), _name(Subject(pool, "ca", f"lbmux {pool}"))
    private = _private(key)
    certificate = (
        _builder(name, private.public_key(), now, CA_DAYS)
        .issuer_name(name)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM), key)


def new_request(key: bytes, name: str, addresses: Collection[str] = ()) -> bytes:
    """Return a certificate signing request (PKCS 10, RFC 2986) for a host name and further names or addresses."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = x509.SubjectAlternativeName([_alternative(one) for one in dict.fromkeys((name, *addresses))])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(names, critical=False)
    return request.sign(_private(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def issue(authority: KeyPair, request: bytes, subject: Subject, now: datetime, days: int = CERTIFICATE_DAYS) -> bytes:
    """Sign a request and return the certificate; the CA decides on the subject, the request on further names."""
    try:
        csr = x509.load_pem_x509_csr(request)
        if not csr.is_signature_valid:
            raise CertificateError("the request is not signed by its own key")
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, InvalidSignature, x509.ExtensionNotFound) as error:
        raise CertificateError(f"not a certificate request: {error}") from error
    ca, private = x509.load_pem_x509_certificate(authority.certificate), _private(authority.key)
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH] + [ExtendedKeyUsageOID.SERVER_AUTH] * (subject.role == "manager")
    certificate = (
        _builder(_name(subject), csr.public_key(), now, days)
        .issuer_name(ca.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(names, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(csr.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def subject_of(certificate: bytes) -> Subject:
    """Return the subject of a certificate in DER or PEM, whose signature TLS has checked."""
    is_pem = certificate.startswith(b"-----")
    name = (x509.load_pem_x509_certificate if is_pem else x509.load_der_x509_certificate)(certificate).subject
    parts = [name.get_attributes_for_oid(oid) for oid in (NameOID.ORGANIZATION_NAME, UNIT, NameOID.COMMON_NAME)]
    if not all(parts):
        raise CertificateError("the certificate does not name a pool, a role and a node")
    return Subject(*(str(part[0].value) for part in parts))


def ends_at(certificate: bytes) -> datetime:
    """Return when a certificate in PEM ends, in UTC."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def is_renewal_due(certificate: bytes, now: datetime) -> bool:
    """Return whether two thirds of a certificate's life are over; ``certificate`` is PEM."""
    loaded = x509.load_pem_x509_certificate(certificate)
    begin = loaded.not_valid_before_utc
    return now >= begin + (loaded.not_valid_after_utc - begin) * 2 / 3


def names_in(certificate: bytes) -> list[str]:
    """Return the host names and addresses in a certificate in PEM."""
    extensions = x509.load_pem_x509_certificate(certificate).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


UNIT = NameOID.ORGANIZATIONAL_UNIT_NAME


def _builder(name: x509.Name, key: object, now: datetime, days: int) -> x509.CertificateBuilder:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CertificateError("the key of a certificate should be an ECDSA key")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS_DIFFER)
        .not_valid_after(now + timedelta(days=days))
    )


def _name(subject: Subject) -> x509.Name:
    return x509.Name([
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject.pool),
        x509.NameAttribute(UNIT, subject.role),
        x509.NameAttribute(NameOID.COMMON_NAME, subject.name),
    ])  # fmt: skip


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _private(key: bytes) -> ec.EllipticCurvePrivateKey:
    private = serialization.load_pem_private_key(key, None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise CertificateError("not an ECDSA key")
    return private


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
