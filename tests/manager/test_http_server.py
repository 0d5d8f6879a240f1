"""The manager's API over HTTPS: what each request does, who may make it, and what bad input gets."""

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lbmux.manager import api_models as api
from lbmux.manager import connection_limits, http_server, request_bodies
from lbmux.manager.api_client import ApiClient, ApiError, trusting
from lbmux.manager.documents import Revision
from lbmux.manager.tokens import AccessRole
from tests.manager.running import Running, running_manager, wait_for
from tests.manager.test_pool import file


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Running]:
    with running_manager(tmp_path) as running:
        yield running


def apply(client: ApiClient, text: bytes, **more: Any) -> Revision | None:
    answer = client.post("/v1/config", api.ApplyRequest(file=text.decode(), **more), api.ApplyAnswer)
    return answer.revision


def token(manager: Running, role: AccessRole, *services: str, for_s: float | None = None) -> str:
    request = api.TokenRequest(name=f"a {role}", role=role, services=services, for_s=for_s)
    return manager.client().post("/v1/tokens", request, api.TokenAnswer).token


def raw(manager: Running, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, Any]]:
    host, _, port = manager.url.removeprefix("https://").rpartition(":")
    connection = http.client.HTTPSConnection(host, int(port), timeout=10, context=trusting(manager.ca.read_text()))
    try:
        connection.request(method, path, body or None, {"Authorization": f"Bearer {manager.token}", **headers})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def refused(status: int, match: str) -> "pytest.RaisesExc[ApiError]":
    return pytest.raises(ApiError, match=match, check=lambda error: error.status == status)


def test_a_file_goes_through_its_life(manager: Running) -> None:
    client = manager.client()
    with refused(404, "no revision yet"):
        client.get("/v1/config", api.ConfigAnswer)
    first = apply(client, file(1, 2), message="begin")
    assert first is not None and (first.number, first.author) == (1, "admin")
    wait_for(lambda: manager.manager.state.revision == 1)
    answer = client.get("/v1/config", api.ConfigAnswer)
    assert answer.file.startswith("# lbmux revision 1, ") and answer.file.encode().endswith(file(1, 2))
    mine = answer.file.encode() + b"      - {name: b3, dip: 10.0.0.3}\n"
    assert apply(client, mine, dry_run=True) is None
    assert (second := apply(client, mine)) and second.number == 2
    with refused(409, "based on revision 1, but revision 2 is current"):
        apply(client, mine)
    with refused(400, "the configuration is invalid") as invalid:
        apply(client, b"services: 5", name="mine.yaml")
    assert invalid.value.problems == ("mine.yaml:1: services: should be a list",)
    with refused(409, "needs --force"):
        apply(client, file(1))
    back = client.post("/v1/rollback", api.RollbackRequest(message="oops"), api.ApplyAnswer).revision
    assert back is not None and (back.number, back.rollback_of) == (3, 1)
    listed = client.get("/v1/revisions", api.RevisionsAnswer).revisions
    assert [one.revision.number for one in listed] == [3, 2, 1] and listed[0].rollout.nodes == 0
    events = client.get("/v1/events", api.EventsAnswer, limit=2).events
    assert [(one.kind, one.by, one.origin) for one in events] == [("rollback", "admin", "127.0.0.1"), (
        "apply", "admin", "127.0.0.1")]  # fmt: skip


def test_overrides_are_set_listed_and_expire(manager: Running) -> None:
    client = manager.client()
    apply(client, file(1, 2))
    drain = api.OverrideRequest(action="drain", backend="b1", reason="new disk", for_s=0.2)
    (one,) = client.post("/v1/overrides", drain, api.OverridesAnswer).overrides
    assert (one.by, one.reason, one.admin_state) == ("admin", "new disk", "drain")
    for request, match in [
        (api.OverrideRequest(action="drain", backend="b7"), "no backend b7"),
        (api.OverrideRequest(action="drain"), "`backend` is needed"),
        (api.OverrideRequest(action="add", added={}), "`service` and `added`"),
        (api.OverrideRequest(action="weight", backend="b1", weight=-1), "greater than or equal to 0"),
    ]:
        with refused(400, match):
            client.post("/v1/overrides", request, api.OverridesAnswer)
    client.post("/v1/overrides", api.OverrideRequest(action="weight", backend="b2", weight=7), api.OverridesAnswer)
    added = api.OverrideRequest(action="add", service="web", added={"dip": "10.0.0.9"})
    client.post("/v1/overrides", added, api.OverridesAnswer)
    wait_for(lambda: len(client.get("/v1/overrides", api.OverridesAnswer).overrides) == 2)  # the drain has ended
    client.post("/v1/overrides", api.OverrideRequest(action="weight", backend="b2"), api.OverridesAnswer)
    wait_for(lambda: [one.backend for one in manager.manager.state.overrides] == ["10.0.0.9:80"])


def test_roles_and_services_limit_a_token(manager: Running) -> None:
    apply(manager.client(), file(1, 2))
    viewer, operator = manager.client(token(manager, "viewer")), manager.client(token(manager, "operator", "mail"))
    assert viewer.get("/v1/status", api.StatusAnswer).is_primary
    with refused(403, "is a viewer's; this needs the role operator"):
        apply(viewer, file(1))
    with refused(403, "may change only service mail"):
        apply(operator, file(1))
    drain = api.OverrideRequest(action="drain", backend="b1", service="web")
    with refused(403, "may change only service mail"):
        operator.post("/v1/overrides", drain, api.OverridesAnswer)
    with refused(403, "needs the role admin"):
        operator.get("/v1/tokens", api.TokensAnswer)


def test_a_token_for_one_service_of_a_pool_may_not_change_the_others(manager: Running) -> None:
    ends = "vip: 192.0.2.1, protocol: tcp, pool: front"
    text = f"""\
pools: {{front: [{{name: b1, dip: 10.1.1.2}}, {{name: b2, dip: 10.1.1.3}}]}}
services: [{{name: web, port: 80, {ends}}}, {{name: tls, port: 443, {ends}}}]
"""
    manager.client().post("/v1/config", api.ApplyRequest(file=text), api.ApplyAnswer)
    drain = api.OverrideRequest(action="drain", backend="b1", service="web")
    with refused(403, "may not change tls, which shares the pool of web"):
        manager.client(token(manager, "operator", "web")).post("/v1/overrides", drain, api.OverridesAnswer)
    answer = manager.client(token(manager, "operator", "web", "tls")).post("/v1/overrides", drain, api.OverridesAnswer)
    assert [(one.service, one.backend) for one in answer.overrides] == [("tls", "b1"), ("web", "b1")]


def test_a_token_ends(manager: Running) -> None:
    short, revoked = token(manager, "viewer", for_s=0.05), token(manager, "viewer")
    lines = manager.client().get("/v1/tokens", api.TokensAnswer).tokens
    assert sorted(one.role for one in lines) == ["admin", "viewer", "viewer"]
    time.sleep(0.06)
    with refused(401, "expired"):
        manager.client(short).get("/v1/status", api.StatusAnswer)
    manager.client().delete("/v1/tokens", api.Done, id=revoked.split("_")[1])
    for wrong in (revoked, revoked[:-1] + "x", "secret", f"lbmux_{'0' * 12}_{'0' * 64}"):
        with refused(401, "unknown|not one of lbmux"):
            manager.client(wrong).get("/v1/status", api.StatusAnswer)
    with refused(401, "a token is needed"):
        manager.client("").get("/v1/status", api.StatusAnswer)
    with refused(401, "a node's certificate is needed"):
        manager.client().post("/v1/renew", api.RenewRequest(request=""), api.CertificateAnswer)


def test_bad_requests_change_nothing(manager: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert raw(manager, "POST", "/v1/config", b"{")[0] == 400
    status, answer = raw(manager, "POST", "/v1/config", b'{"file": "", "forse": true}')
    assert (status, answer["error"]) == (400, "forse: is not a known field: did you mean `force`?")
    assert raw(manager, "GET", "/v1/events?limit=x") == (400, {"error": "limit should be a number", "problems": []})
    status, answer = raw(manager, "POST", "/v1/rollback", b"x" * 70_000)
    assert status == 413 and "over 65536 bytes" in answer["error"]
    status, answer = raw(manager, "POST", "/v1/config", **{"Content-Length": str(100 << 20)})  # body not read
    assert status == 413
    monkeypatch.setattr(request_bodies, "BODY_S", 0.05)
    status, answer = raw(manager, "POST", "/v1/rollback", **{"Content-Length": "10"})
    assert status == 408 and "did not arrive" in answer["error"]
    assert manager.manager.state.revision == 0


def test_slow_connections_take_only_their_own_slots(manager: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "MOST_UNKNOWN", 20)
    host, _, port = manager.url.removeprefix("https://").rpartition(":")
    tls = trusting(manager.ca.read_text())
    slow = [tls.wrap_socket(socket.create_connection((host, int(port)), 10), server_hostname=host) for _ in range(60)]
    slow += [socket.create_connection((host, int(port))) for _ in range(60)]  # not even a handshake
    try:
        assert manager.client().get("/v1/status", api.StatusAnswer).is_primary
        assert b'{reason="too_many"} 60.0\n' in manager.client().read("/metrics")
    finally:
        for one in slow:
            one.close()


def test_a_connection_without_a_handshake_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HANDSHAKE_S", 0.1)
    with running_manager(tmp_path) as manager:
        host, _, port = manager.url.removeprefix("https://").rpartition(":")
        with socket.create_connection((host, int(port)), 10) as plain:
            assert plain.recv(1) == b""


def test_a_connection_without_a_request_is_closed(manager: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_limits, "FIRST_REQUEST_S", 0.1)
    host, _, port = manager.url.removeprefix("https://").rpartition(":")
    tls = trusting(manager.ca.read_text())
    with tls.wrap_socket(socket.create_connection((host, int(port)), 10), server_hostname=host) as started:
        started.sendall(b"GET /v1/status HTTP/1.1\r\nX-Slow: ")
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # or the connection just closes
            assert started.recv(1) == b""
    assert manager.client().get("/v1/status", api.StatusAnswer)


def test_changes_are_watched(manager: Running) -> None:
    host, _, port = manager.url.removeprefix("https://").rpartition(":")
    connection = http.client.HTTPSConnection(host, int(port), timeout=10, context=trusting(manager.ca.read_text()))
    connection.request("GET", "/v1/watch", headers={"Authorization": f"Bearer {manager.token}"})
    stream = connection.getresponse()
    first = json.loads(stream.readline().removeprefix(b"data: "))
    assert first["revision"] == 0 and stream.readline() == b"\n"
    threading.Thread(target=apply, args=(manager.client(), file(1))).start()
    while json.loads(stream.readline().removeprefix(b"data: "))["revision"] != 1:
        assert stream.readline() == b"\n"
    connection.close()


def test_another_manager_sends_changes_to_the_primary(manager: Running) -> None:
    """Here the manager believes that another is primary, which is itself."""
    real = manager.manager.__dict__["_pool"]
    manager.manager.__dict__["_pool"] = None
    threading.Timer(0.1, lambda: manager.manager.__dict__.update(_pool=real)).start()
    status, _ = raw(manager, "POST", "/v1/rollback", b"{}")
    assert status == 307
    wait_for(lambda: manager.manager.is_primary)
    assert apply(manager.client(), file(1)) is not None


def test_metrics(manager: Running) -> None:
    apply(manager.client(), file(1))
    wait_for(lambda: manager.manager.state.revision == 1)
    text = manager.client(token(manager, "viewer")).read("/metrics").decode()
    assert "lbmux_manager_primary 1.0" in text and "lbmux_manager_revision 1.0" in text
    assert 'lbmux_manager_requests_total{path="/v1/config",status="200"} 1.0' in text
    with refused(401, "token"):
        manager.client("").read("/metrics")


def test_a_backup_needs_an_admin(manager: Running) -> None:
    apply(manager.client(), file(1))
    assert manager.client().read("/v1/backup").startswith(b'{"lbmux_backup": 1')
    with refused(403, "needs the role admin"):
        manager.client(token(manager, "operator")).read("/v1/backup")


def test_the_store_is_gone(manager: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    from lbmux.manager.store.store import UnavailableError

    async def fail(*given: object) -> int:
        raise UnavailableError("etcd", "no member answers", uncertain=True)

    monkeypatch.setattr(manager.manager.store, "commit", fail)
    with refused(503, "no member answers; the change may have been stored"):
        apply(manager.client(), file(1))


def test_a_second_server_cannot_listen_there(manager: Running) -> None:
    from lbmux.errors import SetupError

    async def listen() -> None:
        port = int(manager.url.rpartition(":")[2])
        async with http_server.HttpServer(manager.manager).listening("127.0.0.1", port):
            pass

    with pytest.raises(SetupError, match="in use"):
        asyncio.run(listen())
