"""What a mux does with its own overrides, by the answer of its manager."""

import asyncio
import ssl
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lbmux.config.models import Backend
from lbmux.manager.api_models import LocalOverride, LocalOverridesRequest, LocalRoute, TakenOver
from lbmux.manager.documents import Announcement, RouteOverride, StoredOverride, StoredOverrides
from lbmux.manager.hand_over import hand_over

ONE = LocalOverride(service="web", backend="b1", weight=5, since=1.0)
PLAIN: Any = False
"""The server has no TLS."""


STORED = StoredOverrides(
    version=1, overrides=(StoredOverride(service="web", backend="b1", weight=5, since=1.0, by="mux1"),)
)


def offered(
    status: int,
    text: str = "",
    stored: StoredOverrides = STORED,
    one: LocalOverride = ONE,
    routes: tuple[LocalRoute, ...] = (),
) -> tuple[bool, bytes]:
    """Return whether the pool's state may replace the override, and what was sent."""
    sent = list[bytes]()

    async def answer(request: web.Request) -> web.Response:
        sent.append(await request.read())
        return web.Response(status=status, text=text)

    async def ask() -> bool:
        application = web.Application()
        application.router.add_post("/v1/local-overrides", answer)
        async with TestServer(application) as server:
            local = LocalOverridesRequest(overrides=(one,), routes=routes)
            return await hand_over(str(server.make_url("")).rstrip("/"), PLAIN, local, stored, "mux1")

    return asyncio.run(ask()), sent[0]


@pytest.mark.parametrize(
    ("taken", "conflicts", "may_replace"), [((), (), True), (("b1",), (), False), (("b1",), ("b2",), True)]
)
def test_what_is_taken_over_comes_with_the_next_state(
    taken: tuple[str, ...], conflicts: tuple[str, ...], may_replace: bool
) -> None:
    answer = TakenOver(taken=taken, conflicts=conflicts)
    is_replaced, sent = offered(200, answer.model_dump_json())
    assert is_replaced is may_replace
    assert LocalOverridesRequest.model_validate_json(sent).overrides == (ONE,)


@pytest.mark.parametrize(
    ("status", "text", "may_replace"), [(503, "", False), (404, "", True), (400, "", True), (200, "no JSON", True)]
)
def test_overrides_stay_only_while_there_is_no_primary(status: int, text: str, may_replace: bool) -> None:
    assert offered(status, text)[0] is may_replace


@pytest.mark.parametrize("stored", [(), (STORED.overrides[0].model_copy(update={"weight": 4}),)], ids=["none", "older"])
def test_a_state_from_the_middle_of_a_take_over_replaces_nothing(stored: tuple[StoredOverride, ...]) -> None:
    answer = TakenOver(taken=(), conflicts=()).model_dump_json()
    assert offered(200, answer, StoredOverrides(version=1, overrides=stored))[0] is False


def test_overrides_stay_while_the_manager_cannot_be_reached() -> None:
    tls = ssl.create_default_context()
    assert (
        asyncio.run(hand_over("https://127.0.0.1:1", tls, LocalOverridesRequest(overrides=(ONE,)), STORED, "mux1"))
        is False
    )


def test_an_added_backend_is_there_whatever_its_weight_is_at_the_manager() -> None:
    added = StoredOverride(service="web", backend="b1", weight=4, added=Backend(dip="10.1.1.9"), since=1.0, by="admin")
    stored, answer = StoredOverrides(version=1, overrides=(added,)), TakenOver(taken=(), conflicts=())
    one = ONE.model_copy(update={"added": True})
    assert offered(200, answer.model_dump_json(), stored, one)[0] is True
    assert offered(200, answer.model_dump_json(), STORED, one)[0] is False


def test_routes_stay_until_the_pools_state_has_them() -> None:
    local = LocalRoute(vip=None, announcement=Announcement(held=True), held=Announcement(), since=1.0)
    answer = TakenOver(taken=(), conflicts=()).model_dump_json()
    assert offered(200, answer, routes=(local,))[0] is False
    for node, is_there in (("mux1", True), (None, True), ("mux2", False)):
        stored = RouteOverride(node=node, announcement=local.announcement, since=1.0, by="mux1")
        assert offered(200, answer, STORED.model_copy(update={"routes": (stored,)}), routes=(local,))[0] is is_there
    assert b"routes" not in offered(200, answer)[1]  # a manager of the version before does not know it
