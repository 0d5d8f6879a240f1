"""The order in which a change reaches nodes: additions agents before muxes, removals muxes before agents.  Pure.

A mux must not send flows to a backend that its host does not know yet, or no longer knows. Muxes therefore wait until
all agents have taken a state that adds backends, and hosts serve removed backends until all muxes have taken the state
that lacks them. Edges serve hosts and may forward too: muxes and agents wait for them as for each other, but an edge
does not wait for other edges. No node waits longer than `PATIENCE_S` for others that are connected but do not answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lbmux.config.models import Backend, BackendKey, Service
from lbmux.manager.guard_rails import Wanted
from lbmux.manager.host_slices import Placed

Version = tuple[int, int]
"""A revision, and the version of the overrides."""
PATIENCE_S = 3.0


@dataclass(frozen=True)
class Progress:
    """The lowest versions that connected agents and muxes have taken, or refused; None: there are none."""

    agents: Version | None = None
    muxes: Version | None = None


@dataclass(frozen=True)
class _Lingering:
    placed: Placed
    version: Version
    until: float


class RolloutOrder:
    """One manager's part; times are of any steady clock, in seconds."""

    def __init__(self) -> None:
        self._wait_for: Version = (0, 0)
        self._wait_until: float | None = None
        self._lingering: dict[BackendKey, _Lingering] = {}

    @property
    def holds_muxes(self) -> bool:
        """Whether muxes wait for agents."""
        return self._wait_until is not None

    @property
    def lingering(self) -> tuple[Placed, ...]:
        """Backends that hosts still serve."""
        return tuple(one.placed for one in self._lingering.values())

    @property
    def is_idle(self) -> bool:
        return not self.holds_muxes and not self._lingering

    def change(self, old: Wanted, new: Wanted, version: Version, now: float) -> None:
        """Note that the pool's state has changed."""
        if adds(old, new):
            self._wait_for, self._wait_until = version, now + PATIENCE_S
        self._lingering = {key: one for key, one in self._lingering.items() if not _has_backend(new, key)}
        for service, backend in gone(old, new):
            self._lingering[service.name, backend.name] = _Lingering((service, backend), version, now + PATIENCE_S)

    def advance(self, progress: Progress, now: float) -> bool:
        """Release the states that need not wait any longer; return whether there were any."""
        before = self.holds_muxes, len(self._lingering)
        if self._wait_until is not None and (_has(progress.agents, self._wait_for) or now >= self._wait_until):
            self._wait_until = None
        self._lingering = {
            key: one for key, one in self._lingering.items()
            if not (_has(progress.muxes, one.version) or now >= one.until)
        }  # fmt: skip
        return before != (self.holds_muxes, len(self._lingering))


def _has_backend(wanted: Wanted, key: BackendKey) -> bool:
    service = wanted.services.get(key[0])
    return service is not None and any(one.name == key[1] for one in service.backends)


def _has(lowest: Version | None, wanted: Version) -> bool:
    return lowest is None or lowest >= wanted


def adds(old: Wanted, new: Wanted) -> bool:
    """Return whether a change adds backends that hosts have to know."""
    before = old.services
    return any(
        {_end(service, one) for one in service.backends} - _ends(before.get(name))
        for name, service in new.services.items() if service is not before.get(name)
    )  # fmt: skip


def gone(old: Wanted, new: Wanted) -> Iterator[Placed]:
    """Yield the backends that a change removes from services that stay, unless another one has the host or the name."""
    after = new.services
    for name, service in old.services.items():
        later = after.get(name)
        if later is None or later is service or _vip(later) != _vip(service):
            continue
        hosts, names = {one.tunnel_to for one in later.backends}, {one.name for one in later.backends}
        for backend in service.backends:
            if backend.tunnel_to not in hosts and backend.name not in names:
                yield later, backend


def _ends(service: Service | None) -> set[tuple[object, ...]]:
    return set() if service is None else {_end(service, one) for one in service.backends}


def _end(service: Service, backend: Backend) -> tuple[object, ...]:
    return *_vip(service), backend.dip, backend.port, backend.tunnel_to


def _vip(service: Service) -> tuple[object, ...]:
    return service.vip, service.protocol, service.port, service.port_to
