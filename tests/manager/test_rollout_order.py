"""Which change waits for which nodes."""

from lbmux.backends.overrides import Override, Overrides
from lbmux.manager.guard_rails import Wanted
from lbmux.manager.rollout_order import PATIENCE_S, Progress, RolloutOrder, adds, gone
from tests.manager.test_impact import backend, pool, put

NONE = Wanted(None, Overrides())


def removed(before: Wanted, after: Wanted) -> list[tuple[str, str]]:
    return [(service.name, one.name) for service, one in gone(before, after)]


def test_what_hosts_have_to_learn_first() -> None:
    assert adds(NONE, pool([1])) and adds(pool([1]), pool([1, 2]))
    assert adds(pool([1], mail=False), pool([1]))
    assert adds(pool([1]), pool([1], vip="192.0.2.9"))
    assert not adds(pool([1, 2]), pool([1, 2])) and not adds(pool([1, 2]), pool([1]))
    assert not adds(pool([1]), pool([1], put("drain")))
    weighed = Overrides({("web", "b1"): Override(0, weight=7)})
    assert not adds(pool([1]), pool([1], weighed)) and not adds(pool([1], put("disable")), pool([1]))
    assert adds(pool([1], put("remove")), pool([1]))


def test_what_hosts_have_to_keep_for_muxes() -> None:
    assert (
        removed(pool([1, 2]), pool([1])) == removed(pool([1, 2]), pool([1, 2], put("remove", "b2"))) == [("web", "b2")]
    )
    assert removed(pool([1, 2]), pool([1, 2], put("drain"))) == removed(NONE, pool([1])) == []
    assert removed(pool([1, 2]), pool([1], vip="192.0.2.9")) == []  # the muxes have no entries for it left
    assert removed(pool([1]), pool([], backends=[backend(1, port=8080)])) == []  # its host has another backend


def test_muxes_wait_for_agents() -> None:
    order = RolloutOrder()
    order.change(pool([1]), pool([1, 2]), (2, 0), 10.0)
    assert order.holds_muxes and not order.is_idle
    assert not order.advance(Progress(agents=(1, 0), muxes=(1, 0)), 10.1)
    assert order.advance(Progress(agents=(2, 0), muxes=(1, 0)), 10.2) and not order.holds_muxes and order.is_idle


def test_hosts_wait_for_muxes() -> None:
    order = RolloutOrder()
    order.change(pool([1, 2]), pool([1]), (2, 0), 10.0)
    assert not order.holds_muxes and [one.name for _, one in order.lingering] == ["b2"]
    assert not order.advance(Progress(agents=(2, 0), muxes=(1, 9)), 10.1)
    assert order.advance(Progress(agents=(2, 0), muxes=(2, 0)), 10.2) and order.is_idle


def test_no_wait_is_endless() -> None:
    order = RolloutOrder()
    order.change(pool([1, 2]), pool([1, 3]), (2, 0), 10.0)
    assert not order.advance(Progress((1, 0), (1, 0)), 10.0 + PATIENCE_S - 0.1)
    assert order.advance(Progress((1, 0), (1, 0)), 10.0 + PATIENCE_S) and order.is_idle


def test_nothing_waits_for_nodes_that_do_not_exist() -> None:
    order = RolloutOrder()
    order.change(pool([1, 2]), pool([1, 3]), (2, 0), 10.0)
    assert order.advance(Progress(), 10.0) and order.is_idle


def test_a_backend_that_comes_back_no_longer_lingers() -> None:
    order = RolloutOrder()
    order.change(pool([1, 2]), pool([1]), (2, 0), 10.0)
    order.change(pool([1]), pool([1, 2]), (3, 0), 10.1)
    assert order.lingering == () and order.holds_muxes
