"""Which live connections a change moves."""

from typing import Any

import pytest

from lbmux.backends.moved_flows import Flows
from lbmux.backends.overrides import OverriddenState, Override, Overrides
from lbmux.config.models import Config
from lbmux.manager.guard_rails import Wanted
from lbmux.manager.impact import may_move, moved_connections

LIVE = {("web", "b1"): 60, ("web", "b2"): 40, ("mail", "b3"): 100}


def pool(web: list[int], overrides: Overrides | None = None, mail: bool = True, **more: Any) -> Wanted:
    """Services web and mail; ``more``: fields of web."""
    common = {"vip": "192.0.2.1", "protocol": "tcp"}
    services = [common | {"name": "web", "port": 80, "backends": [backend(number) for number in web]} | more]
    if mail:
        services.append(common | {"name": "mail", "port": 25, "backends": [backend(3)]})
    return Wanted(Config.model_validate({"maglev": {"size": 251}, "services": services}), overrides or Overrides())


def backend(number: int, **more: Any) -> dict[str, Any]:
    return {"name": f"b{number}", "dip": f"10.0.0.{number}"} | more


def put(state: OverriddenState, name: str = "b1") -> Overrides:
    return Overrides({("web", name): Override(0, state)})


@pytest.mark.parametrize(
    ("before", "after", "move", "remain"),
    [
        (pool([1, 2]), pool([1, 2]), 0, 0),
        (Wanted(None, Overrides()), pool([1, 2]), 0, 0),
        (pool([1, 2]), pool([1, 2, 4]), 0, 0),
        (pool([1, 2]), pool([1]), 0, 40),  # until they end
        (pool([1, 2]), pool([1, 2], mail=False), 100, 0),
        (pool([1, 2]), pool([1, 2], vip="192.0.2.9"), 100, 0),
        (pool([1, 2]), pool([], backends=[backend(1, dip="10.0.0.9"), backend(2)]), 0, 60),  # it has another host
        (pool([1, 2]), pool([], backends=[backend(1, port=8080), backend(2)]), 60, 0),
        (pool([1, 2]), pool([1, 2], put("drain")), 0, 0),
        (pool([1, 2]), pool([1, 2], put("disable")), 60, 0),
        (pool([1, 2], put("disable")), pool([1, 2], put("disable")), 0, 0),
        (pool([1, 2], put("disable")), pool([1, 2]), 0, 0),
        (pool([1, 2]), pool([1, 2], put("remove")), 0, 60),
    ],
)
def test_changes(before: Wanted, after: Wanted, move: int, remain: int) -> None:
    assert moved_connections(before, after, LIVE) == Flows(200, move, remain)
    assert may_move(before, after) == (move > 0)


def test_without_flow_state_connections_follow_their_slots() -> None:
    before, after = (pool(backends, flows="none") for backends in ([1, 2], [1, 2, 4]))
    moved = moved_connections(before, after, LIVE)
    assert 25 <= moved.move <= 42 and moved.remain == 0 and may_move(before, after)
    drained = moved_connections(before, pool([1, 2], put("drain"), flows="none"), LIVE)
    assert 45 <= drained.move <= 55
    assert not may_move(before, before)
