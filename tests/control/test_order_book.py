import logging
from pathlib import Path

import pytest

from lbmux.control.order_book import OrderBook
from lbmux.control.ordering import add, live, weigh
from lbmux.control.orders import Orders

from .test_ordering import told
from .test_orders import TWO, backend, configured


def test_orders_outlive_the_daemon(tmp_path: Path) -> None:
    orders = told(
        live("drain", "b1", "web", 1), weigh(9, "b2", None, 2), add("web", backend(9, weight=0), 3),
        live("remove", "b2", None, 4),
    )  # fmt: skip
    OrderBook(tmp_path / "orders", TWO).keep(orders)
    assert orders.of and orders.leaving
    assert OrderBook(tmp_path / "orders", TWO).orders == orders


def test_port_that_is_the_services(tmp_path: Path) -> None:
    file = configured({"name": "b1", "dip": "10.0.2.1"}, port="any")
    orders = told(add("web", {"name": "b9", "dip": "10.0.2.9"}, 3), file=file)
    OrderBook(tmp_path / "orders", file).keep(orders)
    assert OrderBook(tmp_path / "orders", file).orders == orders


def test_a_file_changed_meanwhile_ends_orders(tmp_path: Path) -> None:
    OrderBook(tmp_path / "orders", TWO).keep(told(add("web", backend(9), 3), live("remove", "b2", None, 4)))
    after = OrderBook(tmp_path / "orders", configured(backend(1), backend(9)))
    assert not after.orders.of and after.orders.leaving.keys() == {("web", "b2")}
    assert OrderBook(tmp_path / "orders", configured(backend(1), name="other")).orders == Orders()


def test_no_file_before_there_is_an_order(tmp_path: Path) -> None:
    OrderBook(tmp_path / "orders", TWO).keep(Orders())
    assert not (tmp_path / "orders").exists()


def test_file_of_an_earlier_version(tmp_path: Path) -> None:
    (tmp_path / "orders").write_text('[["web", "b1", "drain", 1.5]]')
    (order,) = OrderBook(tmp_path / "orders", TWO).orders.of.values()
    assert (order.life, order.since) == ("drain", 1.5)


@pytest.mark.parametrize("text", [
    "", "{}]", "[1]", '[["web", "b1", "explode", 1]]', '[["web", "b1", null, 1, {"added": {"dip": "none"}}]]',
    '[["web", "b1", "leave", 1]]', '[["web", "b1", "drain", 1, 2]]', '[["web", "b1", null, 1, {"weight": "many"}]]',
])  # fmt: skip
def test_file_that_cannot_be_used(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "orders").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert OrderBook(tmp_path / "orders", TWO).orders == Orders()
    assert "cannot be used" in caplog.text
