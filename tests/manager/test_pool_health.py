"""The view of backends' health: batches and numbers, silent agents, new primaries, and backends that flap."""

from lbmux.config.models import BackendKey
from lbmux.manager.node_messages import HealthLine
from lbmux.manager.pool_health import (
    AGENT_SILENCE_S,
    HALF_LIFE_S,
    LOGGED,
    MOST_DOWNS,
    RESTART_S,
    SILENT,
    HealthCollector,
    HealthView,
)


def up(backend: str, reason: str = "connected") -> HealthLine:
    return "web", backend, True, reason


def down(backend: str, reason: str = "refused") -> HealthLine:
    return "web", backend, False, reason


def test_only_changes_are_returned() -> None:
    collector = HealthCollector()
    collector.report("h1", [up("b1"), down("b2")], True)
    assert collector.changes(0.0) == (up("b1"), down("b2"))
    assert collector.changes(0.1) == ()
    collector.report("h1", [up("b2")], False)
    collector.report("h2", [up("b3")], True)
    assert collector.changes(0.2) == (up("b2"), up("b3"))


def test_only_reported_backends_are_examined() -> None:
    collector, examined = HealthCollector(), list[str]()
    collector.report("h1", [up(f"b{n}") for n in range(100)], True)
    collector.changes(0.0)
    damped = getattr(collector, "_damped")  # noqa: B009 -- it is private, and counted here

    def counted(key: BackendKey, line: HealthLine, now: float) -> HealthLine:
        examined.append(key[1])
        return damped(key, line, now)

    collector.__dict__["_damped"] = counted
    collector.report("h1", [down("b7")], False)
    assert collector.changes(0.1) == (down("b7"),) and examined == ["b7"]
    assert collector.changes(0.2) == () and examined == ["b7"]


def test_the_host_of_a_silent_agent_is_down_after_a_time() -> None:
    collector = HealthCollector()
    collector.report("h1", [up("b1")], True)
    collector.changes(0.0)
    collector.ended("h1", 1.0)
    assert collector.changes(1.0 + AGENT_SILENCE_S - 0.1) == ()  # it may be reaching another manager
    assert collector.changes(1.0 + AGENT_SILENCE_S) == (down("b1", SILENT),)
    collector.report("h1", [up("b1")], True)
    assert collector.changes(20.0) == (up("b1"),)


def test_the_host_of_an_agent_that_restarts_is_not_down() -> None:
    collector = HealthCollector()
    collector.report("h1", [up("b1")], True)
    collector.changes(0.0)
    collector.expect("h1", RESTART_S)
    collector.ended("h1", 1.0)
    assert collector.changes(1.0 + RESTART_S - 0.1) == ()
    assert collector.changes(1.0 + RESTART_S) == (down("b1", SILENT),)
    collector.report("h1", [up("b1")], True)
    assert collector.changes(200.0) == (up("b1"),)
    collector.ended("h1", 201.0)  # it did not announce its stop
    assert collector.changes(201.0 + AGENT_SILENCE_S) == (down("b1", SILENT),)


def test_an_agent_that_is_back_in_time_stays() -> None:
    collector = HealthCollector()
    collector.report("h1", [up("b1")], True)
    collector.changes(0.0)
    collector.ended("h1", 1.0)
    collector.report("h1", [up("b1")], True)
    assert collector.changes(100.0) == ()


def test_the_end_at_a_former_manager_does_not_count() -> None:
    collector = HealthCollector()
    collector.report("h1", [up("b1")], True, "m1")
    collector.report("h1", [up("b1")], True, "m2")
    collector.changes(0.0)
    collector.ended("h1", 1.0, "m1")
    assert collector.changes(100.0) == ()
    collector.ended("h1", 100.0, "m2")
    assert collector.changes(200.0) == (down("b1", SILENT),)


def test_a_new_primary_marks_nothing_down() -> None:
    collector = HealthCollector()
    collector.ended("h1", 0.0)  # it has not reported to this primary
    assert collector.changes(100.0) == ()


def test_a_backend_that_fails_too_often_stays_down_until_it_is_stable() -> None:
    collector, now = HealthCollector(), 0.0
    for _ in range(int(MOST_DOWNS) + 2):
        collector.report("h1", [up("b1")], True)
        collector.changes(now)
        collector.report("h1", [down("b1")], True)
        collector.changes(now)
        now += 1.0
    collector.report("h1", [up("b1")], True)
    held = collector.changes(now)
    assert not held or not held[0][2]
    assert [line[2] for line in collector.changes(now + 2 * HALF_LIFE_S)] == [True]


def test_a_view_gives_what_came_after_a_number() -> None:
    view = HealthView()
    view.take(3, 1, (up("b1"), up("b2")))
    view.take(3, 2, ())
    view.take(3, 3, (down("b1"),))
    assert view.since(3, 3) == view.since(3, 7) == ()
    assert view.since(3, 1) == view.since(3, 2) == (down("b1"),)
    assert set(view.since(2, 9)) == {down("b1"), up("b2")}  # from another primary: all of them
    for number in range(4, 4 + LOGGED):
        view.take(3, number, (up("b3", str(number)),))
    assert set(view.since(3, 2)) == {down("b1"), up("b2"), up("b3", str(3 + LOGGED))}


def test_a_view_of_a_new_epoch_keeps_states_that_it_does_not_name() -> None:
    view = HealthView()
    view.take(3, 9, (up("b1"), up("b2")))
    view.take(4, 1, (down("b1"),))
    assert set(view.since(3, 9)) == {down("b1"), up("b2")} and view.since(4, 0) == (down("b1"),)


def test_a_view_gives_all_weights_if_they_changed_after_a_number() -> None:
    view, first, second = HealthView(), (("web", "b1", 100),), (("web", "b1", 75),)
    view.take(3, 1, (), weights=first)
    view.take(3, 2, ())
    assert view.weights_since(3, 0) == view.weights_since(2, 9) == first
    assert view.weights_since(3, 1) is None
    view.take(3, 3, (), weights=second)
    assert view.weights_since(3, 2) == second and view.weights_since(3, 3) is None
    view.take(4, 1, ())  # of a new primary, which has not decided
    assert view.weights_since(3, 3) == view.weights_since(4, 0) == second
