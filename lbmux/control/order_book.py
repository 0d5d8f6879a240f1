"""The orders in force, kept in a file so that they outlive the daemon."""

import json
import logging
import time
from pathlib import Path
from typing import Any, get_args

from lbmux.control.config import Backend, Config
from lbmux.control.health import kept
from lbmux.control.leaving import BY_FILE, settled
from lbmux.control.ordering import fitting
from lbmux.control.orders import Key, Leaving, Order, Ordered, Orders, ordered

log = logging.getLogger(__name__)
LEAVE = "leave"


class OrderBook:
    """``path``: the file, or None for orders that are soon forgotten; ``config``: the configuration at the start."""

    def __init__(self, path: Path | None, config: Config) -> None:
        self._path, self.orders = path, _read(path) if path is not None else Orders()
        held = fitting(config, self.orders)
        self.keep(settled(config, held, ordered(config, held), held.lives, time.time(), BY_FILE))

    def keep(self, orders: Orders) -> None:
        before, self.orders = self.orders, orders
        if self._path is None or before == orders:
            return
        kept.write(self._path, _lines(orders), "a restart will forget what was ordered")


def _lines(orders: Orders) -> list[list[Any]]:
    """Service, backend, what it is to do, since when; and what else is to be said."""
    lines = [
        [*key, one.life, one.since, {"weight": one.weight, "added": _plain(one.added)}]
        for key, one in orders.of.items()
    ]
    return lines + [
        [*key, LEAVE, one.since, {"backend": _plain(one.backend), "reason": one.reason}]
        for key, one in orders.leaving.items()
    ]


def _plain(backend: Backend | None) -> dict[str, Any] | None:
    """As it would stand in a configuration file."""
    return None if backend is None else backend.model_dump(mode="json")


def _read(path: Path) -> Orders:
    try:
        of, leaving = dict[Key, Order](), dict[Key, Leaving]()
        for service, backend, life, since, *more in json.loads(path.read_text()):
            key, rest = (str(service), str(backend)), more[0] if more else {}
            if life == LEAVE:
                leaving[key] = Leaving(float(since), Backend.model_validate(rest["backend"]), str(rest["reason"]))
            elif life is None or life in get_args(Ordered):
                weight, added = rest.get("weight"), rest.get("added")
                weight = None if weight is None else int(weight)
                of[key] = Order(float(since), life, weight, added and Backend.model_validate(added))
            else:
                raise ValueError(life)
        return Orders(of, leaving)
    except FileNotFoundError:
        return Orders()
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        log.warning("%s cannot be used: nothing is drained, disabled, added or removed", path)
        return Orders()
