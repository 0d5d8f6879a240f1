"""Health from the pool's manager at a mux: what it takes and keeps, and that it asks agents without a primary."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from lbmux.backends import auto_weights
from lbmux.backends.overrides import Overrides
from lbmux.backends.tracker import BackendTracker
from lbmux.config.models import Config
from lbmux.daemons import mux_health
from lbmux.daemons.mux_health import Health
from lbmux.health.load import Load
from lbmux.manager.node_messages import HealthLine, View


def view(*lines: HealthLine, **more: Any) -> View:
    return View(epoch=1, number=1, lines=lines, **more)


def configured(*backends: str, by: str = "agent", weight: int | str = 1) -> Config:
    service = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "health": {"kind": "tcp", "by": by}}
    service["backends"] = [{"name": name, "dip": f"10.1.0.{name[1:]}", "weight": weight} for name in backends]
    return Config.model_validate({"services": [service]})


class Link:
    """A link to managers; ``has_primary``: whether a view came lately."""

    has_primary = True

    def follow_health(self, take: Any) -> None:
        self.take = take


def followed(config: Config) -> tuple[Health, Link, BackendTracker, list[Config]]:
    """A mux's health, its link, and the configurations by which it asks agents itself."""
    reloader: Any = SimpleNamespace(config=config, wanted=config, overrides=Overrides())
    unused: Any = None
    tracker, link, asked = BackendTracker(), Link(), list[Config]()
    health = Health(tracker, reloader, unused, unused)
    client: Any = SimpleNamespace(configure=asked.append)
    prober: Any = SimpleNamespace(configure=lambda _: None)
    health.__dict__.update(_agent_health_client=client, _prober=prober)
    health.follow_pool(link)  # type: ignore[arg-type]
    health.configure(config)
    return health, link, tracker, asked


def test_states_of_backends_that_agents_probe_are_taken() -> None:
    _, link, tracker, asked = followed(configured("b1", "b2"))
    assert tracker.down == {("web", "b1"), ("web", "b2")}  # new ones
    link.take(view(("web", "b1", True, "connected"), ("web", "b9", False, "refused")))
    assert tracker.down == {("web", "b2")} and asked == [mux_health.NO_SERVICES]
    link.take(view(("web", "b1", False, "refused"), ("web", "b2", True, "connected")))
    assert tracker.down == {("web", "b1")}


def test_a_state_that_comes_before_its_configuration_is_kept() -> None:
    health, link, tracker, _ = followed(configured("b1"))
    link.take(view(("web", "b1", True, "connected"), ("web", "b2", True, "connected")))
    health.configure(configured("b1", "b2"))
    assert tracker.down == set()


def test_a_backend_that_the_mux_probes_itself_is_not_the_managers() -> None:
    _, link, tracker, _ = followed(configured("b1", by="mux"))
    link.take(view(("web", "b1", True, "connected")))
    assert not tracker.was_probed(("web", "b1"))


def test_agents_are_asked_while_there_is_no_primary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mux_health, "SOURCE_CHECK_S", 0.001)
    config = configured("b1")
    health, link, tracker, asked = followed(config)

    async def losing_the_primary() -> None:
        choosing = asyncio.create_task(health.choose_source())
        async with asyncio.timeout(5):
            link.take(view(kept=("web",)))
            for has_primary, wanted in ((False, config), (True, mux_health.NO_SERVICES)):
                link.has_primary = has_primary
                while asked[-1] is not wanted:
                    await asyncio.sleep(0.001)
                assert tracker.kept_by_pool is None  # it was that primary's decision
        choosing.cancel()

    asyncio.run(losing_the_primary())


def test_only_weights_that_change_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    _, link, tracker, _ = followed(configured("b1", "b2", weight="auto"))
    link.take(view(weights=(("web", "b1", 100), ("web", "b2", 75))))
    assert tracker.weights == {("web", "b1"): 100, ("web", "b2"): 75}
    assert [record.getMessage() for record in caplog.records] == ["backend b2 of service web: weight 75, by its load"]


def test_weights_come_from_the_primary_and_are_the_first_ones_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mux_health, "SOURCE_CHECK_S", 0.001)
    config = configured("b1", "b2", "b3", weight="auto")
    health, link, tracker, asked = followed(config)

    async def losing_the_primary() -> None:
        choosing = asyncio.create_task(health.choose_source())
        async with asyncio.timeout(5):
            link.take(view(weights=(("web", "b1", 40), ("web", "b2", 100))))
            link.take(view(("web", "b1", True, "connected")))  # weights as before
            assert tracker.weights == {("web", "b1"): 40, ("web", "b2"): 100}
            link.has_primary = False
            while asked[-1] is not config:
                await asyncio.sleep(0.001)
        monkeypatch.setattr(auto_weights, "CHANGE_S", 0.0)
        for name in ("b2", "b3", "b1", "b1"):
            health.on_load(("web", name), Load(0.5, 0, 8.0 if name == "b1" else 0))
        assert tracker.weights["web", "b1"] == 30
        choosing.cancel()

    asyncio.run(losing_the_primary())
