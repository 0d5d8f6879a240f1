from pathlib import Path

import pytest

from lbmux.backends.overrides import Override, Overrides, Removal, with_overrides
from lbmux.backends.tracker import BackendTracker
from tests.backends.test_effective import configured

KEY = ("web", "b1")
CONFIG = configured({"watermark": 0.5})
B1 = CONFIG.services[0].backends[0]


def tracker(now: float = 0.0, path: Path | None = None) -> BackendTracker:
    """Return a tracker of backends that were in force before they were probed."""
    health = BackendTracker(path, lambda: now)
    health.configure(configured(None))
    health.configure(configured({"rise": 1, "fall": 2, "watermark": 0.5}))
    return health


def line(health: BackendTracker, overrides: Overrides | None = None, name: str = "b1") -> dict[str, str]:
    overrides = overrides or Overrides()
    (status,) = (
        one for one in health.lines(CONFIG, with_overrides(CONFIG, overrides), overrides) if one["backend"] == name
    )
    return status


def test_down_with_reason_and_time() -> None:
    health = tracker(86400)
    assert [health.record(KEY, False, "refused") for _ in range(3)] == [False, True, False]
    assert health.down == {KEY}
    assert line(health) == {
        "service": "web", "backend": "b1", "state": "down", "reason": "refused", "since": "1970-01-02T00:00:00Z",
        "dip": "10.0.2.1", "port": 80, "host": "10.0.2.1", "weight": 5, "tunnel": "ipip",
    }  # fmt: skip


def test_a_reload_keeps_what_is_known() -> None:
    health = tracker()
    health.record(KEY, False, "refused")
    health.record(KEY, False, "refused")
    health.configure(configured({"rise": 3}))
    assert health.down == {KEY}
    health.configure(configured(None))
    assert health.down == set()


def test_a_backend_that_was_not_in_force_is_down_until_it_answers() -> None:
    health = BackendTracker(clock=lambda: 0.0)
    config = configured({"rise": 2, "fall": 2})
    assert [b.name for b in health.effective(config, Overrides()).services[0].backends] == []  # before the first probe
    health.configure(config)
    assert KEY in health.down and line(health)["state"] == "down"
    assert health.record(KEY, True, "connected") and KEY not in health.down
    assert [b.name for b in health.effective(config, Overrides()).services[0].backends] == ["b1"]


def test_a_backend_that_has_flows_stays_up_when_its_probes_begin() -> None:
    health = BackendTracker(clock=lambda: 0.0)
    health.configure(configured(None))
    health.configure(configured({"rise": 2, "fall": 2}))
    assert health.down == set() and health.effective(CONFIG, Overrides()) == CONFIG


def test_without_a_health_check_the_reason_is_the_probe_of_the_host() -> None:
    health, bare = BackendTracker(), configured(None)
    health.configure(bare)

    def reason() -> str:
        return str(health.lines(bare, bare, Overrides())[0]["reason"])

    assert reason() == "not probed"
    health.describe_host = lambda host: f"host {host} answers"
    assert reason() == f"no health check; host {B1.tunnel_to} answers"


def test_result_of_a_backend_that_has_gone() -> None:
    assert not tracker().record(("web", "gone"), False, "refused")


def test_below_the_watermark_the_reason_says_so() -> None:
    health = tracker()
    for name in ("b1", "b2", "b3"):
        health.record(("web", name), False, "refused")
        health.record(("web", name), False, "refused")
    assert line(health)["reason"] == "refused; kept: fewer backends than the watermark are healthy"


def test_backends_kept_below_the_low_watermark_stay_until_the_high_one(tmp_path: Path) -> None:
    config = configured({"rise": 1, "fall": 1, "watermark": {"low": 0.3, "high": 0.75}})
    health = BackendTracker(tmp_path / "found", clock=lambda: 0.0)
    health.configure(configured(None))
    health.configure(config)

    def kept(tracker: BackendTracker) -> list[str]:
        return [backend.name for backend in tracker.effective(config, Overrides()).services[0].backends]

    def now(healthy: str) -> list[str]:
        for name in ("b1", "b2", "b3", "b4"):
            health.record(("web", name), name in healthy, "refused")
        return kept(health)

    assert now("b1 b2") == ["b1", "b2"]
    assert now("b1") == ["b1", "b2", "b3", "b4"]
    assert now("b1 b2") == ["b1", "b2", "b3", "b4"]
    assert "kept" in health.lines(config, config, Overrides())[3]["reason"]
    health.save()
    adopting = BackendTracker(tmp_path / "found", clock=lambda: 0.0)
    adopting.restore()
    assert kept(adopting) == ["b1", "b2", "b3", "b4"]
    assert now("b1 b2 b3") == ["b1", "b2", "b3"]


def test_the_pool_s_primary_decides_where_agents_probe() -> None:
    config = configured({"by": "agent", "watermark": 0.5})
    health = BackendTracker(clock=lambda: 0.0)
    health.configure(config)
    for name in ("b1", "b2", "b3", "b4"):
        health.record(("web", name), name != "b4", "connected")

    def rows() -> int:
        return len(health.effective(config, Overrides()).services[0].backends)

    assert rows() == 3
    health.kept_by_pool = frozenset({"web"})
    assert rows() == 4 and "kept" in health.lines(config, config, Overrides())[3]["reason"]
    for name in ("b1", "b2", "b3"):
        health.record(("web", name), False, "refused")
    health.kept_by_pool = frozenset()
    assert rows() == 0
    health.kept_by_pool = None
    assert rows() == 4


def test_weights_by_load_outlive_an_adoption_of_the_tables(tmp_path: Path) -> None:
    health = tracker(path=tmp_path / "found")
    health.weights = {KEY: 60, ("web", "gone"): 50}
    health.save()
    adopting = BackendTracker(tmp_path / "found")
    adopting.restore()
    assert adopting.weights == {KEY: 60, ("web", "gone"): 50} and adopting.down == set()
    adopting.configure(configured({}))
    assert adopting.weights == {KEY: 60}


def test_known_states_outlive_an_adoption_of_the_tables(tmp_path: Path) -> None:
    health = tracker(path=tmp_path / "found")
    for _ in range(2):
        health.record(KEY, False, "refused")
    health.record(("web", "b2"), True, "connected")
    health.save()
    new, adopting = tracker(path=tmp_path / "found"), BackendTracker(tmp_path / "found")
    assert KEY in new.unprobed()
    adopting.restore()
    assert adopting.down == {KEY}  # before it is configured: the tables are made then
    adopting.configure(configured({"rise": 1, "fall": 2}))
    assert line(adopting)["reason"] == "refused"
    assert adopting.unprobed() == {("web", "b3"), ("web", "b4")}
    assert adopting.record(KEY, True, "connected") and adopting.down == set()


def test_a_backend_is_settled_by_one_success_or_by_failures_enough() -> None:
    health = tracker()
    health.record(KEY, False, "refused")
    health.record(("web", "b2"), True, "connected")
    assert [health.was_probed(("web", name)) for name in ("b1", "b2", "gone")] == [False, True, True]
    health.record(KEY, False, "refused")
    assert health.was_probed(KEY)


@pytest.mark.parametrize("text", [
    "", "[1]", "[" * 100_000, '[["web", "b1", "asleep", "refused", 1]]', '[["web", "b1", "down", "refused", 1e300]]',
    '[{"web": 1}]', '[["web", "b1", 0]]', '[["web", "b1", "high"]]',
])  # fmt: skip
def test_an_unusable_state_file_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "found").write_text(text)
    health = tracker(path=tmp_path / "found")
    health.restore()
    assert health.down == set() and health.weights == {}


ADDED = B1.model_copy(update={"name": "b9", "dip": "10.0.2.9"})


@pytest.mark.parametrize(("name", "overrides", "state", "reason"), [
    ("b1", Overrides({KEY: Override(86400, "drain")}), "draining", "by command"),
    ("b1", Overrides({KEY: Override(86400, "disable")}), "disabled", "by command"),
    ("b1", Overrides({KEY: Override(86400, "remove")}), "removed", "by command"),
    ("b1", Overrides({KEY: Override(86400, "remove")}, {KEY: Removal(86400, B1, "removed by command")}), "removing",
     "removed by command"),
    ("b1", Overrides({KEY: Override(86400, weight=0)}), "draining", "weight 0 by command"),
    ("b1", Overrides({KEY: Override(86400, "drain", 7)}), "draining", "by command"),
])  # fmt: skip
def test_an_override_says_its_source_and_its_time(name: str, overrides: Overrides, state: str, reason: str) -> None:
    status = line(tracker(), overrides, name)
    assert (status["state"], status["reason"], status["since"]) == (state, reason, "1970-01-02T00:00:00Z")


def test_an_added_or_weighted_backend_is_up_and_says_so() -> None:
    overrides = Overrides({KEY: Override(0, weight=7), ("web", "b9"): Override(0, weight=3, added=ADDED)})
    states = [line(tracker(), overrides, name) for name in ("b1", "b9")]
    assert [one["state"] for one in states] == ["up", "up"]
    assert [one["reason"].partition("; ")[2] for one in states] == [
        "weight 7 by command", "added by command; weight 3 by command"
    ]  # fmt: skip


def test_without_weight_in_the_file_it_drains() -> None:
    (service,) = CONFIG.services
    backends = (B1.model_copy(update={"weight": 0}), *service.backends[1:])
    config = CONFIG.model_copy(update={"services": (service.model_copy(update={"backends": backends}),)})
    status = tracker().lines(config, config, Overrides())[0]
    assert (status["state"], status["reason"], status["since"]) == ("draining", "weight 0 in the configuration", None)


def test_a_backend_being_removed_may_be_down() -> None:
    health = tracker()
    health.record(KEY, False, "refused")
    health.record(KEY, False, "refused")
    overrides = Overrides({KEY: Override(0, "remove")}, {KEY: Removal(0, B1, "removed by command")})
    assert line(health, overrides)["state"] == "down"
