"""The lives of all backends: what the probes found, and what an operator ordered.

Orders are kept in a file, so that they outlive the daemon.  So is what the probes found, for tables that do: whoever
adopts them is not to bring back what is down in them.  With new tables all is found anew.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from lbmux.control.config import Config, Service
from lbmux.control.health import kept
from lbmux.control.health.checker import Checker, ProbeState
from lbmux.control.health.effective import Key, Order, below_watermark, effective
from lbmux.errors import LbmuxError

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
    """``path``: where orders are kept, and what was found beside it; ``clock``: seconds since the epoch."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._found, self._clock = path, path.with_suffix(".found"), clock
        self._checkers: dict[Key, Checker] = {}
        self._orders = kept.read(path, _ordered, "nothing is drained or disabled")

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

    def is_settled(self, key: Key) -> bool:
        """Whether probes have said if it is up; of a backend that nobody has, there is nothing to say."""
        return key not in self._checkers or self._checkers[key].was_probed

    def unsettled(self) -> set[Key]:
        return {key for key, checker in self._checkers.items() if not checker.was_probed}

    def keep(self) -> None:
        """What the probes found, for ``recall``."""
        lines = [
            [*key, checker.state, checker.reason, checker.since]
            for key, checker in self._checkers.items()
            if checker.was_probed
        ]
        kept.write(self._found, lines, "a restart will not know what is down")

    def recall(self) -> None:
        """Take what was found before, by a process whose tables are in force still."""
        self._checkers = kept.read(self._found, _checked, "what was down begins as up")

    @property
    def down(self) -> set[Key]:
        return {key for key, checker in self._checkers.items() if checker.state == "down"}

    @property
    def orders(self) -> dict[Key, Order]:
        return {key: ordered.order for key, ordered in self._orders.items()}

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
        """As the control socket answers."""
        return [line for service in config.services for line in self._of_service(service)]

    def _of_service(self, service: Service) -> list[dict[str, Any]]:
        are_kept = below_watermark(service, self.down, self.orders)
        found = []
        for backend in service.backends:
            key = service.name, backend.name
            checker, ordered = self._checkers.get(key), self._orders.get(key)
            state, reason, since = "up", "not probed", None
            if checker is not None:
                state, reason, since = checker.state, checker.reason, checker.since
            if ordered is not None and (state == "up" or ordered.order == "disable"):
                state, reason, since = ORDERED[ordered.order], "by command", ordered.since
            elif state == "down" and are_kept:
                reason += "; kept, since too few seem healthy"
            found.append(
                {"service": key[0], "backend": key[1], "state": state, "reason": reason, "since": _text(since)}
            )
        return found

    def _write(self) -> None:
        lines = [[*key, ordered.order, ordered.since] for key, ordered in sorted(self._orders.items())]
        kept.write(self._path, lines, "a restart will forget what is drained and disabled")


def _ordered(lines: Any) -> dict[Key, Ordered]:
    orders = {(str(s), str(b)): Ordered(order, float(since)) for s, b, order, since in lines}
    if not all(ordered.order in get_args(Order) for ordered in orders.values()):
        raise ValueError("an order that there is not")
    return orders


def _checked(lines: Any) -> dict[Key, Checker]:
    found = {(str(s), str(b)): Checker(1, 1, float(since), state, str(why)) for s, b, state, why, since in lines}
    if not all(checker.state in get_args(ProbeState) for checker in found.values()):
        raise ValueError("a state that there is not")
    return found


def _text(since: float | None) -> str | None:
    return None if since is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
