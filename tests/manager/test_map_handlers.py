"""Maps over the manager's API: who may read and change them, and what wrong requests get."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lbmux.manager import api_models as api
from lbmux.manager.map_handlers import MapAnswer, MapRequest, MapsAnswer
from tests.manager.running import Running, running_manager
from tests.manager.test_http_server import refused, token
from tests.manager.test_map_revisions import map_text


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Running]:
    with running_manager(tmp_path) as running:
        yield running


def request(base: int, *pops: str, **more: Any) -> MapRequest:
    return MapRequest(map=map_text(*pops), base=base, users=90, moved=30, rtt_ms=12, **more)


def test_a_map_goes_through_its_life(manager: Running) -> None:
    client, viewer = manager.client(), manager.client(token(manager, "viewer"))
    with refused(404, "no map yet"):
        viewer.get("/v1/map", MapAnswer)
    assert client.post("/v1/map", request(0, "fra", "fra", dry_run=True), MapsAnswer).maps[0].groups_changed == 2
    assert viewer.get("/v1/maps", MapsAnswer).maps == ()
    for base, pop in enumerate(("fra", "ams")):
        client.post("/v1/map", request(base, "fra", pop), MapsAnswer)
    assert viewer.get("/v1/map", MapAnswer).map == map_text("fra", "ams")
    assert viewer.get("/v1/map", MapAnswer, revision=1).map == map_text("fra", "fra")
    assert [one.number for one in viewer.get("/v1/maps", MapsAnswer).maps] == [2, 1]
    assert [one.number for one in viewer.get("/v1/maps", MapsAnswer, limit=1).maps] == [2]
    with refused(404, "map 7 does not exist"):
        viewer.get("/v1/map", MapAnswer, revision=7)
    with refused(409, "from map 1, but map 2 is current"):
        client.post("/v1/map", request(1, "ams", "ams"), MapsAnswer)


def test_a_map_needs_an_operator_of_all_services(manager: Running) -> None:
    for holder, match in ((token(manager, "viewer"), "operator"), (token(manager, "operator", "web"), "only service")):
        with refused(403, match):
            manager.client(holder).post("/v1/map", request(0, "fra", "fra"), MapsAnswer)


@pytest.mark.parametrize("change", [{"map": "{}"}, {"base": -1}, {"users": float("nan")}, {"moved": -1.0}])
def test_a_wrong_request_changes_nothing(manager: Running, change: dict[str, Any]) -> None:
    wrong = request(0, "fra", "fra").model_copy(update=change)
    with refused(400, "."):
        manager.client().post("/v1/map", wrong, MapsAnswer)
    assert manager.client().get("/v1/maps", MapsAnswer).maps == ()
    assert all(event.kind != "map" for event in manager.client().get("/v1/events", api.EventsAnswer).events)
