from typing import Any

import pytest

from lbmux.backends.overrides import Overrides, Removal, with_overrides
from lbmux.backends.removal import finished, with_ending_services, with_removals, without
from lbmux.config.models import Config
from tests.backends.test_overrides import B9, TWO, backend, configured

WEB2 = ("web", "b2")
ONE = configured(backend(1))


def left(after: Config, before: Config = TWO, overrides: Overrides | None = None, **tracker: Any) -> dict[str, str]:
    """Return the backends that leave service web: addresses by name."""
    config = with_removals(
        after,
        overrides or Overrides(),
        before,
        {("web", name): admin_state for name, admin_state in tracker.items()},
        5,
        "why",
    )
    return {name: str(one.backend.dip) for (service, name), one in config.removals.items() if service == "web"}


def test_a_removed_backend_has_no_weight_a_reason_and_a_time() -> None:
    overrides = with_removals(ONE, Overrides(), TWO, {}, 5, "why")
    (one,) = overrides.removals.values()
    assert overrides.removals.keys() == {WEB2} and (one.since, one.reason, one.backend.weight) == (5, "why", 0)


def test_no_backend_is_removed_while_all_stay() -> None:
    assert left(TWO) == {}
    assert left(configured(backend(1, name="other"), backend(2, weight=9))) == {}  # the address stays the same


def test_a_backend_being_removed_keeps_its_identity_over_the_next_change() -> None:
    overrides = with_removals(ONE, Overrides(), TWO, {}, 5, "why")
    again = with_removals(ONE, overrides, with_overrides(ONE, overrides), overrides.admin_states, 9, "another")
    assert again == overrides


def test_a_backend_added_again_is_no_longer_removed() -> None:
    overrides = with_removals(ONE, Overrides(), TWO, {}, 5, "why")
    assert left(TWO, with_overrides(ONE, overrides), overrides) == {}


def test_a_backend_that_moved_is_removed_under_its_old_address() -> None:
    assert left(configured(backend(1), backend(2, dip="10.0.2.7"))) == {"10.0.2.2:8080": "10.0.2.2"}


def test_a_replacement_takes_the_row() -> None:
    assert left(configured(backend(1), backend(2, port=8081))) == {}


def test_disabled_has_no_flows_to_stay_for() -> None:
    assert left(ONE, b2="disable") == {}
    assert left(ONE, b2="drain") == {"b2": "10.0.2.2"}


@pytest.mark.parametrize("change", [{"name": "other"}, {"port": 81}, {"vip": "192.0.2.9"}])
def test_with_a_service_all_its_backends_are_removed(change: dict[str, Any]) -> None:
    assert left(configured(backend(1), **change)) == {}


def test_a_server_id_is_the_new_ones() -> None:
    quic = {"protocol": "udp", "quic": {"rotation": 0, "id_bytes": 1}}
    before = configured(backend(1, server_id="01"), backend(2, server_id="02"), **quic)
    kept = with_removals(configured(backend(1, server_id="01"), **quic), Overrides(), before, {}, 5, "why")
    assert kept.removals[WEB2].backend.server_id == "02"
    overrides = with_removals(configured(backend(1, server_id="02"), **quic), Overrides(), before, {}, 5, "why")
    assert overrides.removals[WEB2].backend.server_id is None


LEAVES = Overrides({}, {WEB2: Removal(100, B9, "why")})
IDLE = configured(backend(1), idle={"tcp_s": 30})


@pytest.mark.parametrize(("rows", "without_flows", "empty", "now", "gone"), [
    ({WEB2}, set(), set(), 1000, set()),
    ({WEB2}, {WEB2}, set(), 129, set()),
    ({WEB2}, {WEB2}, {WEB2}, 129, {WEB2}),
    ({WEB2}, {WEB2}, set(), 130, {WEB2}),
    (set(), set(), set(), 101, {WEB2}),
], ids=[
    "has flows", "another mux may have some", "its host has no connection", "has none", "is out of the tables"
])  # fmt: skip
def test_finished(rows: Any, without_flows: Any, empty: Any, now: float, gone: Any) -> None:
    assert finished(LEAVES, IDLE, rows, without_flows, empty, now) == gone
    assert without(LEAVES, gone).removals.keys() == LEAVES.removals.keys() - gone


def test_a_service_that_a_host_no_longer_gets_keeps_what_may_have_flows() -> None:
    nothing = TWO.model_copy(update={"services": ()})
    ending = with_ending_services(nothing, TWO)
    assert left(ending) == {"b1": "10.0.2.1", "b2": "10.0.2.2"}
    removals = with_removals(ending, Overrides(), TWO, {}, 5, "why")
    later = with_ending_services(nothing, with_overrides(ending, removals))
    assert with_removals(later, removals, with_overrides(ending, removals), {}, 9, "why") == removals
    assert with_ending_services(nothing, with_overrides(ending, Overrides())) == nothing  # the last flow has ended


def test_a_service_whose_vip_another_one_has_ends_at_once() -> None:
    new = configured(backend(9), name="new")
    assert with_ending_services(new, TWO) == new
    assert with_ending_services(TWO, TWO) is TWO
