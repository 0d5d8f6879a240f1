"""What an operator ordered by command, beside the configuration file, and the configuration that both make.  Pure.

An order is about one backend: it drains, is disabled or removed, has another weight, or is added.  A backend that goes
from a service does not go at once: it leaves (control.leaving), without weight.  Muxes, agents and edges make the same
configuration of the same file and orders.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lbmux.config.models import Backend, BackendKey, Config, Service

OverriddenState = Literal["drain", "disable", "remove"]
"""What an operator wants of a backend, where it is not to serve."""
AdminState = OverriddenState | Literal["leave"]


@dataclass(frozen=True)
class Override:
    """``since``: the time of the last change, in seconds since the epoch."""

    since: float
    admin_state: OverriddenState | None = None
    weight: int | None = None
    added: Backend | None = None

    @property
    def says(self) -> bool:
        return (self.admin_state, self.weight, self.added) != (None, None, None)


@dataclass(frozen=True)
class Removal:
    """A backend that is not wanted any more, without weight, as long as it has flows."""

    since: float
    backend: Backend
    reason: str


@dataclass(frozen=True)
class Overrides:
    """All that stands beside the file."""

    of: Mapping[BackendKey, Override] = field(default_factory=dict)
    removals: Mapping[BackendKey, Removal] = field(default_factory=dict)

    @property
    def admin_states(self) -> dict[BackendKey, AdminState]:
        """Of the backends that are not to serve."""
        admin_states: dict[BackendKey, AdminState] = {
            key: override.admin_state for key, override in self.of.items() if override.admin_state
        }
        return admin_states | dict.fromkeys(self.removals, "leave")

    def wanted(self) -> "Overrides":
        """Without backends that are being removed."""
        return Overrides(self.of)


def with_overrides(config: Config, overrides: Overrides) -> Config:
    """The configuration that is wanted: the file's, with the orders.  Who drains or is disabled is in it, as he was."""
    changed = {service for service, _ in (*overrides.of, *overrides.removals)}
    services = tuple(_service(s, overrides) if s.name in changed else s for s in config.services)
    return config.model_copy(update={"services": services})


def _service(service: Service, overrides: Overrides) -> Service:
    mine = {name: override for (of, name), override in overrides.of.items() if of == service.name}
    backends = [b for b in service.backends if b.name not in mine or mine[b.name].admin_state != "remove"]
    backends += [override.added for override in mine.values() if override.added is not None]
    backends = [_weighted(backend, mine.get(backend.name)) for backend in backends]
    backends += [one.backend for (of, _), one in overrides.removals.items() if of == service.name]
    return service.model_copy(update={"backends": tuple(backends)})


def _weighted(backend: Backend, override: Override | None) -> Backend:
    if override is None or override.weight is None:
        return backend
    return backend.model_copy(update={"weight": override.weight})
