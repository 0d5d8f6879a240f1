"""An operator's overrides of the configuration file, and the configuration that results from both.  Pure.

An override applies to one backend: it drains, disables, removes or adds the backend, or changes its weight.  A removed
backend stays with weight 0 until its last flow ends (`removal`).  Muxes, agents and edges derive the same configuration
from the same file and overrides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lbmux.config.models import Backend, BackendKey, Config, Service

OverriddenState = Literal["drain", "disable", "remove"]
"""The state that an operator gives a backend which is not to take new flows."""
AdminState = OverriddenState | Literal["removing"]
"""`removing`: the backend stays until its last flow ends."""


@dataclass(frozen=True)
class Override:
    """``since``: the time of the last change, in seconds since the epoch, as are the other times.

    ``until``: when it ends; ``deadline``: when a drained backend is disabled, which moves the flows that it still has.
    """

    since: float
    admin_state: OverriddenState | None = None
    weight: int | None = None
    added: Backend | None = None
    until: float | None = None
    deadline: float | None = None

    @property
    def is_set(self) -> bool:
        return (self.admin_state, self.weight, self.added) != (None, None, None)


@dataclass(frozen=True)
class Removal:
    """A backend that is being removed: it has weight 0 and stays while it has flows."""

    since: float
    backend: Backend
    reason: str


@dataclass(frozen=True)
class Overrides:
    """All overrides and removals in force."""

    of: Mapping[BackendKey, Override] = field(default_factory=dict)
    removals: Mapping[BackendKey, Removal] = field(default_factory=dict)

    @property
    def admin_states(self) -> dict[BackendKey, AdminState]:
        """The states of the backends that are not to take new flows."""
        admin_states: dict[BackendKey, AdminState] = {
            key: override.admin_state for key, override in self.of.items() if override.admin_state
        }
        return admin_states | dict.fromkeys(self.removals, "removing")

    def without_removals(self) -> "Overrides":
        """Return the overrides without backends that are being removed."""
        return Overrides(self.of)


def with_overrides(config: Config, overrides: Overrides) -> Config:
    """Return the file's configuration with the overrides applied; draining and disabled backends stay unchanged."""
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
