"""Renewal of a node's or manager's certificate, after two thirds of its life."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from lbmux.errors import LbmuxError
from lbmux.manager.api_client import ApiClient
from lbmux.manager.api_models import CertificateAnswer, RenewRequest
from lbmux.manager.authority import KeyPair, is_renewal_due, issue, names_in, new_key, new_request
from lbmux.manager.identity import Identity

log = logging.getLogger(__name__)
CHECK_S = 3600.0


def renew(identity: Identity, urls: Sequence[str], now: datetime) -> None:
    """Replace the certificate and its key; raise LbmuxError if no manager signs the new one.

    A manager that has the CA's key signs its own.
    """
    key, subject, authority = new_key(), identity.subject, identity.authority
    request = new_request(key, subject.name, names_in(identity.certificate))
    if authority is not None:
        certificate = issue(authority, request, subject, now)
    else:
        certificate = _ask(identity, urls, RenewRequest(request=request.decode())).certificate.encode()
    identity.write(identity.ca, KeyPair(certificate, key))


async def keep_valid(
    identity: Identity, urls: Callable[[], Sequence[str]], renewed: Callable[[], None] = lambda: None
) -> None:
    """Renew the certificate whenever it is due, and call ``renewed``; a failure is tried again after an hour."""
    while True:
        try:
            if is_renewal_due(identity.certificate, datetime.now(UTC)):
                await asyncio.to_thread(renew, identity, urls(), datetime.now(UTC))
                renewed()
                log.info("renewed the certificate of %s", identity.subject.name)
        except LbmuxError as error:
            log.error("the certificate is not renewed: %s", error)
        await asyncio.sleep(CHECK_S)


def _ask(identity: Identity, urls: Sequence[str], request: RenewRequest) -> CertificateAnswer:
    """Ask one manager after the other: not all have the CA's key."""
    refused: LbmuxError = LbmuxError("no manager is known")
    for url in urls:
        try:
            return ApiClient([url], "", identity.client_context()).post("/v1/renew", request, CertificateAnswer)
        except LbmuxError as error:
            refused = error
    raise refused
