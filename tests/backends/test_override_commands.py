from typing import Any

import pytest

from lbmux.backends.override_commands import Change, OrderError, UnknownBackendError, add, fitting, live, weigh
from lbmux.backends.overrides import Orders, ordered
from lbmux.config.models import BackendKey, Config
from tests.backends.test_overrides import TWO, backend, configured, weights


def told(*changes: Change, file: Config = TWO, orders: Orders | None = None) -> Orders:
    orders = orders or Orders()
    for change in changes:
        orders, _ = change(file, orders)
    return orders


def wanted(orders: Orders, file: Config = TWO, service: str = "web") -> dict[str, int]:
    return weights(ordered(file, orders.wanted()), service)


def states(orders: Orders) -> dict[BackendKey, str]:
    return {key: life for key, life in orders.lives.items() if key[0] == "web"}


NINE = add("web", backend(9), 3)


def test_in_every_service_or_in_one() -> None:
    assert live("drain", "b1", None, 0)(TWO, Orders())[1] == [("mail", "b1"), ("web", "b1")]
    assert live("drain", "b1", "web", 0)(TWO, Orders())[1] == [("web", "b1")]


@pytest.mark.parametrize("life", ["drain", "disable", "remove"])
def test_enable_takes_it_back(life: Any) -> None:
    orders = told(live(life, "b2", None, 0))
    assert orders.lives
    assert told(live(None, "b2", None, 0), orders=orders) == Orders()


def test_an_order_that_says_the_same_is_not_new() -> None:
    once = told(live("drain", "b2", None, 1))
    assert told(live("drain", "b2", None, 2), orders=once) == once


def test_removed_leaves() -> None:
    orders = told(live("remove", "b2", None, 7))
    assert wanted(orders) == {"b1": 1}
    assert [(key, one.since, one.reason) for key, one in orders.leaving.items()] == [
        (("web", "b2"), 7, "removed by command")
    ]  # fmt: skip


def test_disabled_while_it_leaves_is_gone_and_still_removed() -> None:
    orders = told(live("remove", "b2", None, 0), live("disable", "b2", None, 0))
    assert not orders.leaving and orders.of["web", "b2"].life == "remove"


def test_drained_while_it_leaves_is_there_again() -> None:
    orders = told(live("remove", "b2", None, 0), live("drain", "b2", None, 0))
    assert states(orders) == {("web", "b2"): "drain"}


def test_weight_and_back() -> None:
    orders = told(weigh(9, "b2", None, 0))
    assert wanted(orders) == {"b1": 1, "b2": 9} and not orders.leaving
    assert told(weigh(None, "b2", None, 0), orders=orders) == Orders()


def test_weight_outlives_a_drain() -> None:
    orders = told(weigh(9, "b2", None, 0), live("drain", "b2", None, 0), live(None, "b2", None, 0))
    assert wanted(orders) == {"b1": 1, "b2": 9}


def test_added_fills_in_what_it_leaves_out_and_is_removed_again() -> None:
    orders = told(add("web", {"dip": "10.0.2.9"}, 3))
    assert wanted(orders) == {"b1": 1, "b2": 2, "10.0.2.9:80": 1}
    orders = told(live("remove", "10.0.2.9:80", None, 4), orders=orders)
    assert wanted(orders) == {"b1": 1, "b2": 2}
    assert states(orders) == {("web", "10.0.2.9:80"): "leave"} and not orders.of


def test_added_again_leaves_no_more() -> None:
    orders = told(NINE, live("remove", "b9", None, 4), NINE)
    assert not orders.leaving and wanted(orders)["b9"] == 1


def test_added_drains_and_is_weighed_as_others() -> None:
    orders = told(NINE, weigh(4, "b9", None, 0), live("drain", "b9", None, 0))
    assert wanted(orders)["b9"] == 4 and states(orders) == {("web", "b9"): "drain"}
    assert not told(live("remove", "b9", None, 0), orders=orders).of


def test_one_that_leaves_by_the_file_is_not_enabled() -> None:
    orders = told(NINE, live("remove", "b9", None, 4))
    assert told(live(None, "b9", None, 5), orders=orders) == orders


@pytest.mark.parametrize(("change", "said"), [
    (add("nope", backend(9), 0), "nope: there is no such service"),
    (add("web", backend(9, name="b1"), 0), "web: name: another backend has the name b1"),
    (add("web", backend(9, dip="10.0.2.1"), 0), "web: backends: two backends of one service behind one host"),
    (add("web", backend(9, dip="10.0.2.300"), 0), "web: dip: is not an IPv4 or IPv6 address"),
    (add("web", backend(9, dip="2001:db8::9"), 0), "web: dip: is IPv6, and the VIP is IPv4"),
    (add("web", backend(9, weight=70000), 0), "web: weight: "),
    (add("web", backend(9, colour="red"), 0), "web: colour: is no known field"),
    (weigh(0, "b1", "mail", 0), "mail: backends: at least one backend should have a weight above 0"),
])  # fmt: skip
def test_what_a_file_may_not_say_an_order_may_not(change: Change, said: str) -> None:
    with pytest.raises(OrderError) as caught:
        change(TWO, Orders())
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("weight", [-1, 65536, "5", True])
def test_no_weight(weight: Any) -> None:
    with pytest.raises(OrderError, match="b1: weight: "):
        weigh(weight, "b1", None, 0)


def test_no_order() -> None:
    with pytest.raises(OrderError, match="explode"):
        live("explode", "b1", None, 0)  # type: ignore[arg-type]


def test_too_many_for_the_maglev_table() -> None:
    few = TWO.model_copy(update={"maglev": TWO.maglev.model_copy(update={"size": 3})})
    with pytest.raises(OrderError, match=r"than maglev\.size"):
        told(NINE, file=few)


def test_the_name_of_a_removed_one_is_not_given_away() -> None:
    with pytest.raises(OrderError, match="lbmux enable"):
        told(live("remove", "b2", None, 0), add("web", backend(9, name="b2"), 0))


def test_enabled_whose_host_has_another_now() -> None:
    orders = told(live("remove", "b2", None, 0), add("web", backend(2, name="b9", port=8081), 0))
    assert wanted(orders) == {"b1": 1, "b9": 1} and not orders.leaving  # cannot be told apart
    with pytest.raises(OrderError, match="behind one host"):
        told(live(None, "b2", None, 0), orders=orders)


@pytest.mark.parametrize(("name", "service"), [("b7", None), ("b2", "mail"), ("b1", "nope")])
def test_unknown_backend(name: str, service: str | None) -> None:
    for change in (live("drain", name, service, 0), weigh(1, name, service, 0)):
        with pytest.raises(UnknownBackendError, match="lbmux show health"):
            change(TWO, Orders())


def test_a_service_of_ranges_takes_another() -> None:
    file = configured(backend(1), port="any")
    assert wanted(told(NINE, file=file), file) == {"b1": 1, "b9": 1}


def test_file_that_has_made_the_orders_good() -> None:
    orders = told(NINE, live("remove", "b2", None, 0))
    assert fitting(configured(backend(1), backend(9)), orders).of == {}
    assert fitting(TWO, orders) == orders


@pytest.mark.parametrize("file", [
    configured(backend(1), backend(3, dip="10.0.2.9")), configured(backend(1), name="other"),
    configured({"dip": "2001:db8::1"}, vip="2001:db8::80"),
], ids=["host taken", "no such service", "other family"])  # fmt: skip
def test_file_that_an_added_one_does_not_fit(file: Config) -> None:
    assert fitting(file, told(NINE)).of == {}
