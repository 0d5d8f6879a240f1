import errno
import logging
import os
from pathlib import Path

import pytest

from lbmux.backends.override_commands import add, live, weigh
from lbmux.backends.override_store import NotStoredError, OrderBook
from lbmux.backends.overrides import Orders
from lbmux.config.models import Config
from tests.backends.test_override_commands import told
from tests.backends.test_overrides import TWO, backend, configured


def keep(path: Path, file: Config, orders: Orders) -> OrderBook:
    book = OrderBook(path, file)
    book.keep(orders, book.prepare(orders))
    return book


def test_orders_outlive_the_daemon(tmp_path: Path) -> None:
    orders = told(
        live("drain", "b1", "web", 1), weigh(9, "b2", None, 2), add("web", backend(9, weight=0), 3),
        live("remove", "b2", None, 4),
    )  # fmt: skip
    keep(tmp_path / "orders", TWO, orders)
    assert orders.of and orders.leaving
    assert OrderBook(tmp_path / "orders", TWO).orders == orders


def test_port_that_is_the_services(tmp_path: Path) -> None:
    file = configured({"name": "b1", "dip": "10.0.2.1"}, port="any")
    orders = told(add("web", {"name": "b9", "dip": "10.0.2.9"}, 3), file=file)
    keep(tmp_path / "orders", file, orders)
    assert OrderBook(tmp_path / "orders", file).orders == orders


def test_a_file_changed_meanwhile_ends_orders(tmp_path: Path) -> None:
    keep(tmp_path / "orders", TWO, told(add("web", backend(9), 3), live("remove", "b2", None, 4)))
    after = OrderBook(tmp_path / "orders", configured(backend(1), backend(9)))
    assert not after.orders.of and after.orders.leaving.keys() == {("web", "b2")}
    assert OrderBook(tmp_path / "orders", configured(backend(1), name="other")).orders == Orders()


def test_no_file_before_there_is_an_order(tmp_path: Path) -> None:
    keep(tmp_path / "orders", TWO, Orders())
    assert not (tmp_path / "orders").exists()


def test_file_of_an_earlier_version(tmp_path: Path) -> None:
    (tmp_path / "orders").write_text('[["web", "b1", "drain", 1.5]]')
    (order,) = OrderBook(tmp_path / "orders", TWO).orders.of.values()
    assert (order.life, order.since) == ("drain", 1.5)


@pytest.mark.parametrize("text", [
    "", "{}]", "[1]", '[["web", "b1", "explode", 1]]', '[["web", "b1", null, 1, {"added": {"dip": "none"}}]]',
    "[" * 100_000, '[["web", "b1", "leave", 1]]',
    '[["web", "b1", "drain", 1, 2]]', '[["web", "b1", null, 1, {"weight": "many"}]]',
])  # fmt: skip
def test_file_that_cannot_be_used(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "orders").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert OrderBook(tmp_path / "orders", TWO).orders == Orders()
    assert "cannot be used" in caplog.text


DRAINED = told(live("drain", "b1", "web", 1))


def is_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_orders_that_cannot_be_written_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = keep(tmp_path / "orders", TWO, told(live("drain", "b2", "web", 1)))
    before = (tmp_path / "orders").read_bytes()
    monkeypatch.setattr(os, "fsync", is_full)
    with pytest.raises(NotStoredError) as caught:
        book.prepare(DRAINED)
    assert str(caught.value) == (
        f"cannot be stored in {tmp_path}/orders: No space left on device: nothing was changed"
    )
    assert book.is_stored and (tmp_path / "orders").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["orders"]


def test_what_was_prepared_and_discarded_leaves_nothing(tmp_path: Path) -> None:
    book = OrderBook(tmp_path / "orders", TWO)
    book.discard(book.prepare(DRAINED))
    assert not list(tmp_path.iterdir())


def test_orders_that_are_not_stored_are_stored_by_the_next(tmp_path: Path) -> None:
    book = OrderBook(tmp_path / "orders", TWO)
    book.keep(DRAINED, None)
    assert not book.is_stored
    book.keep(DRAINED, book.prepare(DRAINED))
    assert book.is_stored and OrderBook(tmp_path / "orders", TWO).orders == DRAINED


def test_a_full_disk_at_the_start_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep(tmp_path / "orders", TWO, told(live("remove", "b2", None, 1)))
    monkeypatch.setattr(os, "fsync", is_full)
    assert not OrderBook(tmp_path / "orders", configured(backend(1))).is_stored
    assert "in force, but a restart will forget it" in caplog.text
