"""What the page changes, at muxes and at a manager."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from lbmux.api.answers import BackendHealth, Overridden
from lbmux.api.requests import Override, Request, SetWeight
from lbmux.backends.override_commands import OverrideError
from lbmux.errors import LbmuxError
from lbmux.manager.api_models import ApplyAnswer, ApplyRequest, OverrideRequest, OverridesAnswer
from lbmux.manager.documents import StoredOverride
from lbmux.manager.relayed_node import RelayedNode
from lbmux.tools.web.page_actions import apply, manager_of, override, parse
from lbmux.tools.web.web_server import Site
from tests.api.answering import answering
from tests.tools.web.conftest import Served, visit

Client = TestClient[Any, Any]
ACTIONS = {"override": True, "apply": False, "explain": True}
DRAIN = {"action": "drain", "service": "web", "backend": "h1"}


def action_of(fields: dict[str, Any]) -> OverrideRequest:
    return parse(json.dumps(fields).encode())


def state(state: str, weight: int = 1) -> Overridden:
    line = BackendHealth("web", "h1", state, "by command", None, "10.1.1.2", 80, "10.1.1.2", weight, "ipip")
    return Overridden(1, "mux", [line])


class Mux:
    """A control socket that takes overrides."""

    def __init__(self, path: Path, refuses: bool = False) -> None:
        self.path, self.asked, self._refuses = path, list[Request[Any]](), refuses
        self.handlers = {Override: self.answer, SetWeight: self.answer}

    async def answer(self, request: Request[Any]) -> Overridden:
        self.asked.append(request)
        if self._refuses:
            raise OverrideError("h1", "is not a backend here")
        return state("draining", 5)


class Manager:
    """A manager's client that keeps what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def post(self, path: str, body: Any, kind: type) -> Any:
        self.asked.append((path, body))
        if kind is ApplyAnswer:
            return ApplyAnswer(revision=None, changes=("service web: backend h3 added",), needs_force=())
        one = StoredOverride(
            service="web", backend="h1", admin_state="drain", weight=None, added=None, since=0.0, by="ann", reason="",
            until=None,
        )  # fmt: skip
        return OverridesAnswer(version=1, overrides=(one,) if body.action == "drain" else ())


def test_an_override_goes_to_each_mux(tmp_path: Path) -> None:
    muxes = [Mux(tmp_path / "mux1.sock"), Mux(tmp_path / "mux2.sock")]
    with answering(muxes[0].path, muxes[0].handlers), answering(muxes[1].path, muxes[1].handlers):
        places = [mux.path for mux in muxes]
        said = override(action_of(DRAIN), None, places)
        for more in ({"action": "enable"}, {"action": "weight", "weight": 7}, {"action": "weight"}):
            override(action_of(DRAIN | more), None, places)
    assert said == [f"mux{n}: web/h1 is draining, weight 5" for n in (1, 2)]
    assert muxes[0].asked == muxes[1].asked == [
        Override("h1", "drain", "web"), Override("h1", None, "web"), SetWeight("h1", 7, "web"),
        SetWeight("h1", None, "web"),
    ]  # fmt: skip


def test_a_refusal_says_where_and_what_was_done_elsewhere(tmp_path: Path) -> None:
    one, other = Mux(tmp_path / "mux1.sock"), Mux(tmp_path / "mux2.sock", refuses=True)
    with (
        answering(one.path, one.handlers), answering(other.path, other.handlers), pytest.raises(LbmuxError) as error
    ):  # fmt: skip
        override(action_of(DRAIN), None, [one.path, other.path])
    assert "mux2.sock: h1: is not a backend here" in str(error.value)
    assert "mux1: web/h1 is draining" in str(error.value)


def test_with_a_manager_it_gets_the_override() -> None:
    manager = Manager()
    places = [RelayedNode(manager, "mux1"), RelayedNode(manager, "mux2")]  # type: ignore[arg-type]
    client = manager_of(places)
    assert override(action_of(DRAIN | {"reason": "new disk"}), client, places) == ["web/h1: drain"]
    assert override(action_of(DRAIN | {"action": "enable"}), client, places) == ["as in the file"]
    (path, body), _ = manager.asked
    assert (path, body) == (
        "/v1/overrides", OverrideRequest(action="drain", service="web", backend="h1", reason="new disk")
    )  # fmt: skip


def test_a_configuration_is_applied_by_a_manager_only() -> None:
    manager = Manager()
    answer = apply("services: []", manager, dry_run=True)  # type: ignore[arg-type]
    assert answer.changes == ("service web: backend h3 added",)
    request = ApplyRequest(file="services: []", message="from the page", dry_run=True)
    assert manager.asked == [("/v1/config", request)]
    with pytest.raises(LbmuxError, match="start `lbmux web` with --manager"):
        apply("services: []", manager_of([Path("/run/mux.sock")]), dry_run=True)


@pytest.mark.parametrize("path", ["/api/override", "/api/apply"])
def test_a_page_without_actions_changes_nothing(site: Site, path: str) -> None:
    async def ask(client: Client) -> None:
        answer = await client.post(path, json=DRAIN)
        assert answer.status == 403 and "--actions" in (await answer.json())["error"]

    visit(site, ask)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (DRAIN | {"action": "remove"}, "one of drain, disable, enable, weight"), ({"action": "drain"}, "give service"),
        (DRAIN | {"action": "halt"}, "action: "), (DRAIN | {"weight": "many"}, "weight: "),
        (DRAIN | {"extra": 1}, "extra: "), ([], "dictionary"), (7, "dictionary"),
    ],
)  # fmt: skip
def test_a_request_that_is_not_valid_names_the_field(site: Site, body: Any, error: str) -> None:
    async def ask(client: Client) -> None:
        answer = await client.post("/api/override", data=json.dumps(body))
        assert answer.status == 400 and error in (await answer.json())["error"]

    visit(Site(site.places(), actions=True), ask)


def test_an_override_from_the_page_is_in_force(tmp_path: Path) -> None:
    mux = Mux(tmp_path / "mux1.sock")

    async def ask(client: Client) -> None:
        answer = await client.post("/api/override", json=DRAIN, headers={"Authorization": "Bearer secret"})
        assert await answer.json() == {"version": 1, "said": ["mux1: web/h1 is draining, weight 5"]}
        refused = await client.post("/api/override", json=DRAIN)
        assert refused.status == 401

    with answering(mux.path, mux.handlers):
        visit(Site([mux.path], actions=True), ask, "secret")
    assert mux.asked == [Override("h1", "drain", "web")]


def test_events_say_what_the_visitor_may_do(muxes: list[Served]) -> None:
    async def ask(site: Site) -> dict[str, bool]:
        rights: dict[str, bool] = {}

        async def read(client: Client) -> None:
            async with client.get("/events") as stream:
                line = await stream.content.readuntil(b"\n\n")
                rights.update(json.loads(line.removeprefix(b"data: "))["can"])

        await asyncio.to_thread(visit, site, read)
        return rights

    assert asyncio.run(ask(Site([muxes[0].path]))) == {"override": False, "apply": False, "explain": True}
    assert asyncio.run(ask(Site([muxes[0].path], actions=True))) == ACTIONS
