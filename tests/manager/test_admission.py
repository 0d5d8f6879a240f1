"""A pool is made once; a node joins it with a token that works once."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lbmux.errors import SetupError
from lbmux.manager import api_models as api
from lbmux.manager.admission import join, make_pool
from lbmux.manager.api_client import ApiClient, ApiError, trusting
from lbmux.manager.authority import KeyPair, Subject, issue, new_authority, new_key, new_request
from lbmux.manager.identity import Identity
from lbmux.manager.store.open_store import open_store
from lbmux.manager.tokens import AccessError
from tests.manager.running import Running, running_manager


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Running]:
    with running_manager(tmp_path / "manager") as running:
        yield running


def invited(manager: Running, name: str = "mux1", role: str = "node", for_s: float = 60.0) -> str:
    request = api.JoinTokenRequest.model_validate({"name": name, "role": role, "for_s": for_s})
    return manager.client().post("/v1/join-tokens", request, api.TokenAnswer).token


def test_a_node_joins_and_renews(manager: Running, tmp_path: Path) -> None:
    identity, token = Identity(tmp_path / "mux1"), invited(manager)
    join([manager.url], token, identity, ["192.0.2.1"], "host1")
    assert identity.subject == Subject(manager.manager.pool_id, "node", "mux1")
    assert (identity.directory / "node.pem").stat().st_mode & 0o777 == 0o600 and identity.authority is None
    assert b"PRIVATE" not in identity.certificate and b"PRIVATE" in (identity.directory / "node.pem").read_bytes()
    client = manager.client("")
    client.__dict__["_context"] = identity.client_context()
    key = new_key()
    request = api.RenewRequest(request=new_request(key, "anything").decode())
    answer = client.post("/v1/renew", request, api.CertificateAnswer)
    assert answer.name == "mux1" and answer.certificate.encode() != identity.certificate
    identity.write(identity.ca, KeyPair(answer.certificate.encode(), key))
    identity.client_context()
    events = manager.client().get("/v1/events", api.EventsAnswer).events
    assert [(one.kind, one.by) for one in events[:2]] == [("join", "mux1"), ("token", "admin")]
    with pytest.raises(ApiError, match="unknown"):  # the token has been used
        join([manager.url], token, Identity(tmp_path / "mux2"), [], "host2")
    with pytest.raises(SetupError, match="it exists"):
        join([manager.url], invited(manager), identity, [], "host1")


def test_a_token_of_another_pool_or_time(manager: Running, tmp_path: Path) -> None:
    token = invited(manager, for_s=0.01)
    with pytest.raises(AccessError, match="does the manager belong to another pool"):
        join([manager.url], token[:-64] + "0" * 64, Identity(tmp_path / "a"), [], "a")
    time.sleep(0.02)
    with pytest.raises(ApiError, match="expired"):
        join([manager.url], token, Identity(tmp_path / "a"), [], "a")
    assert not (tmp_path / "a").exists()


def test_a_node_of_another_pool_or_with_an_old_certificate_is_refused(manager: Running, tmp_path: Path) -> None:
    ca, now, client = manager.manager.identity.authority, datetime.now(UTC), manager.client("")
    assert ca is not None

    def own(pool: str, days: int) -> Identity:
        key, identity = new_key(), Identity(tmp_path / pool)
        certificate = issue(ca, new_request(key, "x"), Subject(pool, "node", "x"), now, days)
        identity.write(ca.certificate, KeyPair(certificate, key))
        return identity

    client.__dict__["_context"] = own("other", 1).client_context()
    with pytest.raises(ApiError, match="node x is of pool other"):
        client.post("/v1/renew", api.RenewRequest(request=""), api.CertificateAnswer)
    old = own(manager.manager.pool_id, 0)
    with pytest.raises(SetupError, match="has expired"):
        old.client_context()
    client.__dict__["_context"].load_cert_chain(old.directory / "node.pem")
    with pytest.raises(ApiError, match="no answer"):  # if a client does not check the name itself
        client.post("/v1/renew", api.RenewRequest(request=""), api.CertificateAnswer)


def test_a_server_of_another_ca_is_not_trusted(manager: Running) -> None:

    other = new_authority("other", datetime.now(UTC)).certificate.decode()
    with pytest.raises(ApiError, match="is --manager-ca the CA of this pool"):
        ApiClient([manager.url], manager.token, trusting(other)).get("/v1/status", api.StatusAnswer)


def test_a_pool_is_made_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_store(str(tmp_path / "store")) as store:
            identity = Identity(tmp_path / "m1")
            await make_pool(store, identity, "m1", [], time.time())
            with pytest.raises(SetupError, match="it exists"):
                await make_pool(store, identity, "m1", [], time.time())
            with pytest.raises(SetupError, match="already holds a pool"):
                await make_pool(store, Identity(tmp_path / "m2"), "m2", [], time.time())
            assert not (tmp_path / "m2" / "node.pem").exists() and identity.authority is not None

    asyncio.run(scenario())
