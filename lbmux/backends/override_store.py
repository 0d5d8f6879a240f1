"""The orders in force, kept in a file so that they outlive the daemon."""

import contextlib
import json
import logging
import time
from pathlib import Path
from typing import Any, get_args

from lbmux.backends import state_file
from lbmux.backends.override_commands import fitting
from lbmux.backends.overrides import Leaving, Order, Ordered, Orders, ordered
from lbmux.backends.removal import BY_FILE, settled
from lbmux.config.models import Backend, BackendKey, Config
from lbmux.errors import LbmuxError

log = logging.getLogger(__name__)
LEAVE = "leave"


class NotStoredError(LbmuxError):
    """Orders could not be written to their file."""

    def __init__(self, path: Path | None, reason: str, in_force: bool = False) -> None:
        self.path, self.reason, self.in_force = path, reason, in_force
        super().__init__(path, reason, in_force)

    def __str__(self) -> str:
        become = "in force, but a restart will forget it" if self.in_force else "nothing was changed"
        return f"cannot be stored in {self.path}: {self.reason}: {become}"


class OrderBook:
    """``path``: the file, or None for orders that are soon forgotten; ``config``: the configuration at the start.

    To store comes in two steps, so that what is in force and the file agree: ``prepare`` does what may fail, before
    orders come into force, and ``keep`` puts the new file in its place.
    """

    def __init__(self, path: Path | None, config: Config) -> None:
        self.path = path
        self.orders = self._stored = _read(path) if path is not None else Orders()
        held = fitting(config, self.orders)
        orders = settled(config, held, ordered(config, held), held.lives, time.time(), BY_FILE)
        try:
            self.keep(orders, self.prepare(orders))
        except NotStoredError as error:
            log.warning("%s", NotStoredError(path, error.reason, in_force=True))
            self.keep(orders, None)

    @property
    def is_stored(self) -> bool:
        return self.path is None or self._stored == self.orders

    def prepare(self, orders: Orders) -> Path | None:
        """The new file, where there must be one; NotStoredError."""
        if self.path is None or self._stored == orders:
            return None
        try:
            return state_file.prepare(self.path, _lines(orders))
        except OSError as error:
            raise NotStoredError(self.path, error.strerror or str(error)) from error

    def keep(self, orders: Orders, new: Path | None) -> None:
        """``new``: as prepared.  Orders are in force now, whether or not they are stored."""
        self.orders = orders
        if new is not None and self.path is not None:
            try:
                new.replace(self.path)
                self._stored = orders
            except OSError as error:
                log.warning("%s", NotStoredError(self.path, error.strerror or str(error), in_force=True))
                self.discard(new)

    def discard(self, new: Path | None) -> None:
        """What was prepared does not come into force."""
        if new is not None:
            with contextlib.suppress(OSError):
                new.unlink()


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
        of, leaving = dict[BackendKey, Order](), dict[BackendKey, Leaving]()
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
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        log.warning("%s cannot be used: nothing is drained, disabled, added or removed", path)
        return Orders()
