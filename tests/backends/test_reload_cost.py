from typing import Any

import pytest

from lbmux.backends.reload_cost import diff
from lbmux.config.models import Config


def configured(weights: dict[str, int], size: int | str = 65537, **more: Any) -> Config:
    backends = [{"name": n, "dip": f"10.0.2.{at}", "weight": w} for at, (n, w) in enumerate(weights.items(), 1)]
    service = {"name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80, "backends": backends}
    return Config(**{"maglev": {"size": size}, "services": [service | more]})


FOUR = {"a": 1, "b": 1, "c": 1, "d": 1}


def test_equal_configurations_have_no_difference() -> None:
    assert diff(configured(FOUR), configured(FOUR)) == []


def test_backend_removed_moves_its_slots_and_few_more() -> None:
    (change,) = diff(configured(FOUR), configured({"a": 1, "b": 1, "c": 1}))
    assert (change.service, change.change, change.removed, change.added, change.changed) == (
        "web", "changed", ("d",), (), ()
    )  # fmt: skip
    assert change.slots_moved is not None and 0.25 <= change.slots_moved < 0.45


def test_backend_added() -> None:
    (change,) = diff(configured(FOUR), configured(FOUR | {"e": 1}))
    assert change.added == ("e",)
    assert change.slots_moved is not None and 0.2 <= change.slots_moved < 0.4


def test_an_automatic_table_that_grows_moves_all() -> None:
    weights = dict.fromkeys("abcdefghijk", 1)
    ten, eleven = configured(dict.fromkeys("abcdefghij", 1), size="auto"), configured(weights, size="auto")
    assert [found.slots_moved for found in diff(ten, eleven)] == [1.0]
    (found,) = diff(configured(FOUR, size="auto"), configured(FOUR | {"e": 1}, size="auto"))
    assert found.slots_moved is not None and 0.2 <= found.slots_moved < 0.4


def test_backend_drained() -> None:
    (change,) = diff(configured(FOUR), configured(FOUR | {"d": 0}))
    (removed,) = diff(configured(FOUR), configured({"a": 1, "b": 1, "c": 1}))
    assert change.changed == ("d",) and change.slots_moved == removed.slots_moved


def test_changes_that_move_no_slot() -> None:
    (change,) = diff(configured(FOUR), configured(FOUR, idle={"tcp_s": 7}))
    assert change.slots_moved == 0.0 and not change.changed


@pytest.mark.parametrize("new", [configured(FOUR, size=65539), configured(FOUR, vip="192.0.2.2")])
def test_another_table_moves_all(new: Config) -> None:
    assert [changes.slots_moved for changes in diff(configured(FOUR), new)] == [1.0]


def test_all_without_weight_before_and_after() -> None:
    (change,) = diff(configured({}), configured({}, idle={"tcp_s": 7}))
    assert change.slots_moved is None


def test_services_added_and_removed() -> None:
    changes = diff(configured(FOUR), configured(FOUR, name="mail"))
    assert [(one.service, one.change, one.slots_moved) for one in changes] == [
        ("web", "removed", None), ("mail", "added", None)
    ]  # fmt: skip
    assert changes[0].removed == changes[1].added == ("a", "b", "c", "d")
