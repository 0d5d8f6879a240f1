"""What an operator ordered by command, beside the configuration file, and the configuration that both make.  Pure.

An order is about one backend: it drains, is disabled or removed, has another weight, or is added.  A backend that goes
from a service does not go at once: it leaves (control.leaving), without weight.  Muxes, agents and edges make the same
configuration of the same file and orders.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lbmux.config.models import Backend, BackendKey, Config, Service

Ordered = Literal["drain", "disable", "remove"]
"""What an operator wants of a backend, where it is not to serve."""
Life = Ordered | Literal["leave"]


@dataclass(frozen=True)
class Order:
    """``since``: the time of the last change, in seconds since the epoch."""

    since: float
    life: Ordered | None = None
    weight: int | None = None
    added: Backend | None = None

    @property
    def says(self) -> bool:
        return (self.life, self.weight, self.added) != (None, None, None)


@dataclass(frozen=True)
class Leaving:
    """A backend that is not wanted any more, without weight, as long as it has flows."""

    since: float
    backend: Backend
    reason: str


@dataclass(frozen=True)
class Orders:
    """All that stands beside the file."""

    of: Mapping[BackendKey, Order] = field(default_factory=dict)
    leaving: Mapping[BackendKey, Leaving] = field(default_factory=dict)

    @property
    def lives(self) -> dict[BackendKey, Life]:
        """Of the backends that are not to serve."""
        lives: dict[BackendKey, Life] = {key: order.life for key, order in self.of.items() if order.life}
        return lives | dict.fromkeys(self.leaving, "leave")

    def wanted(self) -> "Orders":
        """Less what only leaves."""
        return Orders(self.of)


def ordered(config: Config, orders: Orders) -> Config:
    """The configuration that is wanted: the file's, with the orders.  Who drains or is disabled is in it, as he was."""
    changed = {service for service, _ in (*orders.of, *orders.leaving)}
    services = tuple(_service(s, orders) if s.name in changed else s for s in config.services)
    return config.model_copy(update={"services": services})


def _service(service: Service, orders: Orders) -> Service:
    mine = {name: order for (of, name), order in orders.of.items() if of == service.name}
    backends = [b for b in service.backends if b.name not in mine or mine[b.name].life != "remove"]
    backends += [order.added for order in mine.values() if order.added is not None]
    backends = [_weighted(backend, mine.get(backend.name)) for backend in backends]
    backends += [one.backend for (of, _), one in orders.leaving.items() if of == service.name]
    return service.model_copy(update={"backends": tuple(backends)})


def _weighted(backend: Backend, order: Order | None) -> Backend:
    if order is None or order.weight is None:
        return backend
    return backend.model_copy(update={"weight": order.weight})
