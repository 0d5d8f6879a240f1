"""Identifies the sender of a request: the holder of a token, or a node with a certificate."""

import ssl
from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from lbmux.manager.authority import CertificateError, Subject, ends_at, subject_of
from lbmux.manager.forwarded import address_in
from lbmux.manager.store.store import Store
from lbmux.manager.tokens import TOKENS, AccessError, Token, check_secret, token_id


def bearer(request: web.Request) -> str:
    """Return the text in the header `Authorization: Bearer TOKEN`; raise AccessError."""
    kind, _, text = request.headers.get("Authorization", "").partition(" ")
    if kind != "Bearer" or not text:
        raise AccessError("a token is needed: Authorization: Bearer TOKEN", 401)
    return text


async def token_of(text: str, store: Store, clock: Callable[[], float]) -> Token:
    """Return the token of this text; raise AccessError."""
    entry = await store.get(f"{TOKENS}{token_id(text)}")
    stored = None if entry is None else Token.model_validate_json(entry.value)
    check_secret(text, stored, clock())
    assert stored is not None  # otherwise the handshake fails
    return stored


def node_of(request: web.Request, pool: str) -> Subject:
    """Return the subject of the client's certificate, which TLS has checked; raise AccessError."""
    certificate = _certificate(request)
    if certificate is None:
        raise AccessError("a node's certificate is needed; `lbmux join` gets one", 401)
    try:
        subject = subject_of(certificate)
    except CertificateError as error:
        raise AccessError(str(error), 401) from error
    if subject.pool != pool:
        raise AccessError(f"node {subject.name} is of pool {subject.pool}; this is pool {pool}")
    return subject


def manager_of(request: web.Request, pool: str) -> Subject:
    """Return the subject of another manager's certificate; raise AccessError."""
    peer = node_of(request, pool)
    if peer.role != "manager":
        raise AccessError(f"{peer.name} is not a manager")
    return peer


def origin_of(request: web.Request, pool: str) -> str:
    """Return the address that a request came from; a manager of the pool may ask for another address."""
    address = address_in(request.headers.get("Forwarded", ""))
    if address:
        with suppress(AccessError):
            manager_of(request, pool)
            return address
    return request.remote or ""


def certificate_end(request: web.Request) -> float | None:
    """Return the time at which the client's certificate expires, in seconds since 1970; None without one."""
    certificate = _certificate(request)
    return None if certificate is None else ends_at(ssl.DER_cert_to_PEM_cert(certificate).encode()).timestamp()


def _certificate(request: web.Request) -> bytes | None:
    """Return the client's certificate in DER."""
    tls = request.transport.get_extra_info("ssl_object") if request.transport else None
    return tls.getpeercert(binary_form=True) if isinstance(tls, ssl.SSLObject) else None
