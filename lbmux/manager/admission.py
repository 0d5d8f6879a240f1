"""Creates a pool, and gets a certificate for a node: `lbmux manager init` and `lbmux join`."""

import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from lbmux.errors import SetupError
from lbmux.manager.api_client import ApiClient, trusting
from lbmux.manager.api_models import CaAnswer, CertificateAnswer, JoinRequest
from lbmux.manager.authority import KeyPair, Subject, issue, new_authority, new_key, new_request
from lbmux.manager.identity import Identity, fingerprint
from lbmux.manager.pool_state import POOL_ID
from lbmux.manager.store.store import ConflictError, Guard, Store, Write
from lbmux.manager.tokens import TOKENS, AccessError, ca_fingerprint_in, new_token


async def make_pool(
    store: Store, identity: Identity, name: str, addresses: Sequence[str], now: float
) -> tuple[str, str]:
    """Make a pool with a CA, this manager's certificate, and an admin's token; return the pool's id and the token.

    Raise SetupError if the store has a pool, or the directory an identity.
    """
    if identity.exists():
        hint = "remove its files if their pool no longer exists"
        raise SetupError(f"identity in {identity.directory}", "it exists", hint)
    if await store.get(POOL_ID) is not None:
        raise _has_pool()
    pool, date, key = str(uuid.uuid4()), datetime.fromtimestamp(now, UTC), new_key()
    ca = new_authority(pool, date)
    certificate = issue(ca, new_request(key, name, addresses), Subject(pool, "manager", name), date)
    token, text = new_token("admin", "admin", now)
    identity.write(ca.certificate, KeyPair(certificate, key), ca.key)
    try:
        writes = [Write(POOL_ID, pool.encode()), Write(f"{TOKENS}{token.id}", token.model_dump_json().encode())]
        await store.commit([Guard(POOL_ID, 0)], writes)
    except BaseException as error:
        for file in ("node.pem", "ca.crt", "ca.key"):
            with suppress(OSError):
                (identity.directory / file).unlink()
        if isinstance(error, ConflictError):
            raise _has_pool() from error
        raise
    return pool, text


def join(urls: Sequence[str], token: str, identity: Identity, addresses: Sequence[str], name: str) -> CertificateAnswer:
    """Get a certificate by a one-time token and store it; raise AccessError, ApiError or SetupError."""
    if identity.exists():
        hint = "remove its files to join again"
        raise SetupError(f"identity in {identity.directory}", "it exists", hint)
    wanted = ca_fingerprint_in(token)
    ca = ApiClient(urls, "", trusting(None)).get("/v1/ca", CaAnswer).ca
    if fingerprint(ca.encode()) != wanted:
        raise AccessError("the manager's CA does not match the token: does the manager belong to another pool?")
    key = new_key()
    request = JoinRequest(token=token, request=new_request(key, name, addresses).decode())
    answer = ApiClient(urls, "", trusting(ca)).post("/v1/join", request, CertificateAnswer)
    identity.write(ca.encode(), KeyPair(answer.certificate.encode(), key))
    return answer


def _has_pool() -> SetupError:
    return SetupError("store", "it already holds a pool", "join it with `lbmux join`, or use another store")
