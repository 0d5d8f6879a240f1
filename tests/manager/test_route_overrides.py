"""Overrides of announcements: their scope, their ends, and what a node makes of them."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from lbmux.bgp.announced import Announced
from lbmux.config.models import Config
from lbmux.manager.documents import StoredOverrides
from lbmux.manager.route_overrides import (
    RouteOrder,
    Routes,
    UnknownVipError,
    changed_routes,
    commands_at,
    concerned,
    describe_differences,
    describe_route,
    fitting_routes,
    unexpired_routes,
)
from lbmux.manager.stored_overrides import Terms, next_end

ONE, TWO = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
HELD, ANNOUNCED = Announced(is_held=True), Announced()
CONFIG = Config.model_validate({
    "services": [
        {"name": f"s{n}", "vip": str(vip), "protocol": "tcp", "port": 80, "backends": [{"dip": "10.0.0.1"}]}
        for n, vip in enumerate((ONE, TWO))
    ]
})  # fmt: skip
TERMS = Terms("alice", "attack", 60.0)


def after(*orders: RouteOrder, before: Routes = ()) -> Routes:
    for order in orders:
        before = changed_routes(before, CONFIG, order, TERMS, 1.0)
    return before


def test_a_withdrawal_is_stored_with_author_reason_and_end() -> None:
    (one,) = stored = after(RouteOrder(ONE, None, HELD))
    assert (one.vip, one.node, one.announcement.held) == (ONE, None, True)
    assert (one.by, one.reason, one.since, one.until) == ("alice", "attack", 1.0, 60.0)
    assert commands_at(stored, "mux1") == commands_at(stored, "mux2") == {ONE: HELD}
    assert StoredOverrides.model_validate_json(StoredOverrides(routes=stored).model_dump_json()).routes == stored
    assert next_end(StoredOverrides(routes=stored)) == 60.0
    assert unexpired_routes(stored, 59.9) == stored and unexpired_routes(stored, 60.0) == ()


def test_a_vip_is_withdrawn_while_one_override_withdraws_it() -> None:
    longer = RouteOrder(None, None, Announced(prepended=2))
    stored = after(longer, RouteOrder(None, "mux1", HELD), RouteOrder(TWO, None, HELD))
    assert commands_at(stored, "mux1") == {None: Announced(is_held=True, prepended=2), TWO: HELD}
    assert commands_at(stored, "mux2") == {None: Announced(prepended=2), TWO: HELD}


@pytest.mark.parametrize(("vip", "node", "left"), [
    (None, None, []),
    (ONE, None, [(None, "mux1"), (TWO, None)]),
    (TWO, None, [(None, "mux1"), (ONE, "mux1")]),
    (None, "mux1", [(TWO, None)]),
    (ONE, "mux1", [(None, "mux1"), (TWO, None)]),
    (ONE, "mux2", [(None, "mux1"), (ONE, "mux1"), (TWO, None)]),
])  # fmt: skip
def test_an_announcement_ends_the_overrides_within_its_scope(
    vip: IPv4Address | None, node: str | None, left: list[object]
) -> None:
    stored = after(RouteOrder(None, "mux1", HELD), RouteOrder(ONE, "mux1", HELD), RouteOrder(TWO, None, HELD))
    remaining = after(RouteOrder(vip, node, ANNOUNCED), before=stored)
    assert [(one.vip, one.node) for one in remaining] == left


def test_a_repeated_command_replaces_the_first() -> None:
    order = RouteOrder(ONE, "mux1", HELD)
    stored = changed_routes(after(order), CONFIG, replace(order, wanted=Announced(prepended=1)), Terms("bob"), 2.0)
    assert [(one.by, one.until, one.announcement.prepended) for one in stored] == [("bob", None, 1)]


def test_a_vip_that_does_not_exist() -> None:
    with pytest.raises(UnknownVipError, match=r"no service has the VIP 192\.0\.2\.9"):
        after(RouteOrder(IPv4Address("192.0.2.9"), None, HELD))


def test_a_file_without_the_vip_ends_its_override() -> None:
    stored = after(RouteOrder(ONE, None, HELD), RouteOrder(None, "mux1", HELD))
    without = CONFIG.model_copy(update={"services": CONFIG.services[1:]})
    assert fitting_routes(stored, CONFIG) == stored and fitting_routes(stored, without) == stored[1:]


def test_what_acts_on_a_vip_at_a_node() -> None:
    stored = after(RouteOrder(None, "mux1", HELD), RouteOrder(TWO, None, HELD))
    assert concerned(stored, RouteOrder(ONE, "mux1", ANNOUNCED)) == stored[:1]
    assert concerned(stored, RouteOrder(TWO, "mux2", ANNOUNCED)) == stored[1:]
    assert concerned(stored, RouteOrder(None, None, ANNOUNCED)) == stored


def test_words_for_the_log() -> None:
    stored = after(RouteOrder(ONE, None, HELD), RouteOrder(None, "mux1", HELD))
    assert [*map(describe_route, stored)] == [
        "192.0.2.1: withdrawn at all muxes and edges", "all VIPs: withdrawn at mux1",
    ]  # fmt: skip
    longer = after(RouteOrder(ONE, None, Announced(prepended=1)))
    assert [*describe_differences(stored, longer)] == [
        "192.0.2.1: announced as /32 and /128, with the own AS prepended 1 time at all muxes and edges",
        "all VIPs: announced as in the file at mux1",
    ]
