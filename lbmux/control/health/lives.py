"""The lives of all backends: what the probes found, and what an operator ordered.

Orders are kept in a file, so that they outlive the daemon; what the probes found is not, since it is soon found again.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from lbmux.control.config import Backend, Config, Service, kind_of
from lbmux.control.health.checker import Checker
from lbmux.control.health.effective import Key, Order, below_watermark, effective
from lbmux.errors import LbmuxError

log = logging.getLogger(__name__)
ORDERED: dict[Order, str] = {"drain": "draining", "disable": "disabled"}
"""The state of a backend of which that is wanted."""


class UnknownBackendError(LbmuxError):
    """No service, or not ``service``, has a backend of that name."""

    def __init__(self, backend: str, service: str | None) -> None:
        self.backend, self.service = backend, service
        super().__init__(backend, service)

    def __str__(self) -> str:
        where = f"service {self.service} has" if self.service else "there is"
        return f"{where} no backend {self.backend}: `lbmux show health` lists them"


@dataclass(frozen=True)
class Ordered:
    order: Order
    since: float


class Lives:
    """``path``: where orders are kept; ``clock``: seconds since the epoch."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._checkers: dict[Key, Checker] = {}
        self._orders = _read(path)

    def configure(self, config: Config) -> None:
        """Know the backends of ``config`` and no others; those that were known keep their state."""
        known: dict[Key, Checker] = {}
        for service in config.services:
            for backend in service.backends if service.health else ():
                assert service.health is not None
                key = service.name, backend.name
                checker = self._checkers.get(key) or Checker(1, 1, self._clock())
                counts = service.health.by == "mux"  # an agent has counted already
                checker.rise, checker.fall = (service.health.rise, service.health.fall) if counts else (1, 1)
                known[key] = checker
        self._checkers = known

    def heard(self, key: Key, healthy: bool, reason: str) -> bool:
        """Take a probe's result; whether the backend's state changed."""
        checker = self._checkers.get(key)
        return checker is not None and checker.heard(healthy, reason, self._clock())

    @property
    def down(self) -> set[Key]:
        return {key for key, checker in self._checkers.items() if checker.state == "down"}

    @property
    def orders(self) -> dict[Key, Order]:
        # Of a copy, made at once: `lines` may be read in a thread while somebody orders.
        return {key: ordered.order for key, ordered in self._orders.copy().items()}

    def effective(self, config: Config) -> Config:
        return effective(config, self.down, self.orders)

    def order(self, config: Config, order: Order | None, backend: str, service: str | None = None) -> list[Key]:
        """Want something of a backend, in one service or in all that have it; None: that it serves."""
        keys = [
            (s.name, b.name)
            for s in config.services
            for b in s.backends
            if b.name == backend and service in (None, s.name)
        ]
        if not keys:
            raise UnknownBackendError(backend, service)
        for key in keys:
            if order is None:
                self._orders.pop(key, None)
            elif key not in self._orders or self._orders[key].order != order:
                self._orders[key] = Ordered(order, self._clock())
        self._write()
        return keys

    def lines(self, config: Config) -> list[dict[str, Any]]:
        """As the control socket answers: of all that the file has, also what has no row in the tables."""
        down, orders = self.down, self.orders
        return [
            line | _where(config, service, backend)
            for service in config.services
            for line, backend in zip(self._of_service(service, down, orders), service.backends, strict=True)
        ]

    def _of_service(self, service: Service, down: set[Key], orders: dict[Key, Order]) -> list[dict[str, Any]]:
        kept = below_watermark(service, down, orders)
        found = []
        for backend in service.backends:
            key = service.name, backend.name
            checker, ordered = self._checkers.get(key), self._orders.get(key)
            state, reason, since = "up", "not probed", None
            if checker is not None:
                state, reason, since = checker.state, checker.reason, checker.since
            if ordered is not None and (state == "up" or ordered.order == "disable"):
                state, reason, since = ORDERED[ordered.order], "by command", ordered.since
            elif state == "down" and kept:
                reason += "; kept, since too few seem healthy"
            found.append(
                {"service": key[0], "backend": key[1], "state": state, "reason": reason, "since": _text(since)}
            )
        return found

    def _write(self) -> None:
        lines = [[*key, ordered.order, ordered.since] for key, ordered in sorted(self._orders.items())]
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            new.write_text(json.dumps(lines))
            new.replace(self._path)
        except OSError as error:
            log.warning("%s: %s: a restart will forget what is drained and disabled", self._path, error.strerror)


def _read(path: Path) -> dict[Key, Ordered]:
    try:
        lines = json.loads(path.read_text())
        orders = {(str(s), str(b)): Ordered(order, float(since)) for s, b, order, since in lines}
        if all(ordered.order in get_args(Order) for ordered in orders.values()):
            return orders
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError):
        pass
    log.warning("%s cannot be used: nothing is drained or disabled", path)
    return {}


def _text(since: float | None) -> str | None:
    return None if since is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))


def _where(config: Config, service: Service, backend: Backend) -> dict[str, Any]:
    """As the file has it: of a backend that is out the tables know nothing."""
    return {
        "dip": str(backend.dip),
        "port": backend.port,
        "host": str(backend.tunnel_to),
        "weight": backend.weight,
        "tunnel": kind_of(config, service, backend),
    }
