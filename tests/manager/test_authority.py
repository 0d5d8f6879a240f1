"""Certificates of a pool: signers, contents and refusals."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from lbmux.manager.authority import (
    CertificateError,
    Subject,
    ends_at,
    issue,
    new_authority,
    new_key,
    new_request,
    subject_of,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NODE = Subject("pool1", "node", "mux1")


def test_a_certificate_says_what_the_authority_decided() -> None:
    ca = new_authority("pool1", NOW)
    certificate = issue(ca, new_request(new_key(), "something.else", ["192.0.2.1"]), NODE, NOW, days=30)
    assert subject_of(certificate) == NODE and ends_at(certificate) == NOW + timedelta(days=30)
    loaded = x509.load_pem_x509_certificate(certificate)
    assert subject_of(loaded.public_bytes(serialization.Encoding.DER)) == NODE
    loaded.verify_directly_issued_by(x509.load_pem_x509_certificate(ca.certificate))
    with pytest.raises(ValueError, match="Issuer"):
        loaded.verify_directly_issued_by(x509.load_pem_x509_certificate(new_authority("other", NOW).certificate))


@pytest.mark.parametrize(("role", "servers"), [("node", 0), ("manager", 1)])
def test_only_managers_may_be_servers(role: str, servers: int) -> None:
    certificate = issue(new_authority("p", NOW), new_request(new_key(), "m1"), Subject("p", role, "m1"), NOW)
    uses = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert len(list(uses)) == 1 + servers


def test_openssl_accepts_the_pair(tmp_path: Path) -> None:
    now, key = datetime.now(UTC), new_key()
    (tmp_path / "crt").write_bytes(issue(new_authority("p", now), new_request(key, "m1"), NODE, now))
    (tmp_path / "key").write_bytes(key)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "crt", tmp_path / "key")


@pytest.mark.parametrize("text", [b"", b"hello", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_what_is_not_a_request_is_refused(text: bytes) -> None:
    with pytest.raises(CertificateError, match="not a certificate request"):
        issue(new_authority("p", NOW), text, NODE, NOW)


def test_a_key_of_another_kind_is_refused() -> None:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mux1")])
    names = x509.SubjectAlternativeName([x509.DNSName("mux1")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(names, critical=False)
    pem = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(CertificateError, match="ECDSA"):
        issue(new_authority("p", NOW), pem, NODE, NOW)


def test_a_certificate_of_no_pool_is_refused() -> None:
    key, name = rsa.generate_private_key(65537, 2048), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    bare = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(1)).sign(key, hashes.SHA256())
    with pytest.raises(CertificateError, match="does not name"):
        subject_of(bare.public_bytes(serialization.Encoding.PEM))
