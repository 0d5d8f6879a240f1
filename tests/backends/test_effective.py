from typing import Any

from lbmux.backends.effective import below_watermark, below_watermarks, effective
from lbmux.backends.overrides import AdminState
from lbmux.config.models import BackendKey, Config


def configured(health: dict[str, Any] | None, count: int = 4) -> Config:
    backends = [{"name": f"b{n}", "dip": f"10.0.2.{n}", "weight": 5} for n in range(1, count + 1)]
    service = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "backends": backends}
    return Config(**{"services": [service | ({"health": health} if health is not None else {})]})


def weights(config: Config, down: str = "", tracker: dict[str, AdminState] | None = None) -> dict[str, int]:
    keys: dict[BackendKey, AdminState] = {("web", name): admin_state for name, admin_state in (tracker or {}).items()}
    failed = {("web", name) for name in down.split()}
    effective_config = effective(config, failed, keys, kept=below_watermarks(config, failed, keys))
    return {backend.name: backend.weight for backend in effective_config.services[0].backends}


def test_no_override_is_the_same_service() -> None:
    config = configured({})
    assert effective(config, set(), {}).services[0] is config.services[0]


def test_down_is_left_out() -> None:
    assert weights(configured({}), "b2") == {"b1": 5, "b3": 5, "b4": 5}


def test_all_down_leaves_none() -> None:
    assert weights(configured({}), "b1 b2 b3 b4") == {}


def test_draining_has_no_weight() -> None:
    assert weights(configured({}), tracker={"b1": "drain"}) == {"b1": 0, "b2": 5, "b3": 5, "b4": 5}


def test_disabled_is_left_out_also_without_probes() -> None:
    assert weights(configured(None), tracker={"b1": "disable"}) == {"b2": 5, "b3": 5, "b4": 5}


def test_draining_and_down_is_left_out() -> None:
    assert "b1" not in weights(configured({}), "b1", {"b1": "drain"})


def test_another_service_has_its_own() -> None:
    config = configured({})
    assert effective(config, {("mail", "b1")}, {("mail", "b2"): "disable"}).services == config.services


def test_watermark_keeps_all_below_the_share() -> None:
    config = configured({"watermark": 0.5})
    assert len(weights(config, "b1 b2")) == 2
    assert len(weights(config, "b1 b2 b3")) == 4


def test_watermark_keeps_none_that_is_disabled_or_draining() -> None:
    config = configured({"watermark": 0.5})
    assert weights(config, "b2 b3", {"b1": "disable", "b4": "drain"}) == {"b2": 5, "b3": 5, "b4": 0}


def test_watermark_counts_the_backends_that_are_to_stay() -> None:
    service = configured({"watermark": 0.5}).services[0]
    down = {("web", "b1"), ("web", "b2")}
    assert not below_watermark(service, down, {})
    assert below_watermark(service, down, {("web", "b3"): "disable"})
    assert below_watermark(service, down, {("web", "b3"): "removing"})


def test_between_the_watermarks_nothing_changes() -> None:
    service = configured({"watermark": {"low": 0.3, "high": 0.6}}, count=10).services[0]

    def below(healthy: int, was_below: bool) -> bool:
        down = {("web", backend.name) for backend in service.backends[healthy:]}
        return below_watermark(service, down, {}, was_below)

    assert [below(healthy, False) for healthy in (2, 3, 5, 6)] == [True, False, False, False]
    assert [below(healthy, True) for healthy in (2, 3, 5, 6)] == [True, True, True, False]


def test_weights_that_follow_the_load_are_numbers() -> None:
    backends = [{"name": f"b{n}", "dip": f"10.0.2.{n}", "weight": "auto"} for n in (1, 2, 3)]
    service = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "health": {"by": "agent"}}
    config = Config.model_validate({"services": [service | {"backends": backends}]})
    found = effective(config, set(), {("web", "b3"): "drain"}, weights={("web", "b1"): 60, ("web", "b3"): 80})
    assert [(one.name, int(one.weight)) for one in found.services[0].backends] == [("b1", 60), ("b2", 100), ("b3", 0)]
