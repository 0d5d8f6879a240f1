"""Services below their watermark, as the primary decides it for all muxes."""

from typing import Any

import pytest

from lbmux.backends.overrides import Override, Overrides
from lbmux.config.models import BackendKey, Config
from lbmux.manager.guard_rails import Wanted
from lbmux.manager.pool_watermarks import PoolWatermarks

NAMES = ("b1", "b2", "b3", "b4")


def watermarks(overrides: Overrides | None = None, **health: Any) -> PoolWatermarks:
    settings = {"kind": "tcp", "by": "agent", "watermark": {"low": 0.3, "high": 0.75}} | health
    service = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "health": settings}
    service["backends"] = [{"name": name, "dip": f"10.0.0.{name[1]}"} for name in NAMES]
    pool_watermarks = PoolWatermarks()
    pool_watermarks.configure(Wanted(Config.model_validate({"services": [service]}), overrides or Overrides()))
    return pool_watermarks


def states(up: str, unknown: str = "") -> Any:
    def is_up(key: BackendKey) -> bool | None:
        return None if key[1] in unknown else key[1] in up

    return is_up


def test_a_service_below_the_low_end_stays_below_until_the_high_one() -> None:
    pool_watermarks, below = watermarks(), tuple[str, ...]()
    seen = [below := pool_watermarks.below(states(up), below) for up in ("b1b2", "b1", "b1b2", "b1b2b3", "b1b2")]
    assert seen == [(), ("web",), ("web",), (), ()]


def test_backends_that_no_agent_has_reported_leave_the_decision_as_it_was() -> None:
    pool_watermarks = watermarks()
    assert pool_watermarks.below(states("b1", unknown="b4"), ()) == ()
    assert pool_watermarks.below(states("b1b2b3", unknown="b4"), ("web",)) == ("web",)


def test_disabled_backends_do_not_count() -> None:
    disabled = Overrides({("web", name): Override(0.0, "disable") for name in ("b3", "b4")})
    assert watermarks().below(states("b1"), ()) == ("web",)
    assert watermarks(disabled).below(states("b1"), ()) == ()


@pytest.mark.parametrize("health", [{"by": "mux"}, {"watermark": None}], ids=["by mux", "no watermark"])
def test_the_primary_decides_only_where_agents_probe_and_there_is_a_watermark(health: dict[str, Any]) -> None:
    assert watermarks(**health).below(states(""), ()) == ()
