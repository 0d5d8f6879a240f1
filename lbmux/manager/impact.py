"""What a change of the desired state does to live connections, from counts by backend.  Pure.

Established connections stay with their backend while it is in the tables, also when it is drained or removed. They move
when it is disabled, when its or its VIP's addresses change, and in services without flow state when their slot moves.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lbmux.backends.effective import effective
from lbmux.backends.moved_flows import Flows, flows, least_moved
from lbmux.config.models import BackendKey, Config, Service, slots_of
from lbmux.manager.canary import Sample
from lbmux.manager.documents import StoredOverrides
from lbmux.manager.guard_rails import Wanted

Counts = Mapping[BackendKey, int]
"""Live connections by backend."""
NOTHING = Config(services=())


@dataclass(frozen=True)
class Connections:
    """Live connections by backend, and the agents that did not answer."""

    counts: Counter[BackendKey] = field(default_factory=Counter)
    silent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plans:
    """What muxes would do: the share of each service's slots that move, who would refuse, who did not answer."""

    slots: Mapping[str, float] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    silent: tuple[str, ...] = ()


class Survey(Protocol):
    """Asks the live nodes."""

    async def connections(self) -> Connections: ...

    async def plans(self, text: bytes, stored: StoredOverrides) -> Plans: ...

    async def samples(self) -> Mapping[str, Sample]: ...


class NoNodes:
    """The survey where no node can be asked."""

    async def connections(self) -> Connections:
        return Connections()

    async def plans(self, text: bytes, stored: StoredOverrides) -> Plans:
        return Plans()

    async def samples(self) -> Mapping[str, Sample]:
        return {}


def moved_connections(before: Wanted, after: Wanted, live: Counts) -> Flows:
    """Return all connections, those that a change moves or breaks, and those that remain with removed backends."""
    names, disabled = _changed(before, after), _newly_disabled(before, after)
    counts = [
        _without_state(before, after, service, live) if service.tracking == "none"
        else _of_service(_part(before, name), _part(after, name), disabled, live)
        for name, service in before.services.items() if name in names
    ]  # fmt: skip
    return Flows(sum(live.values()), sum(one.move for one in counts), sum(one.remain for one in counts))


def may_move(before: Wanted, after: Wanted) -> bool:
    """Return whether a change would move a connection if each backend had some."""
    names = _changed(before, after)
    services = [one for name, one in before.services.items() if name in names]
    every = {(one.name, backend.name): 1000 for one in services for backend in one.backends}
    return moved_connections(before, after, every).move > 0


def _changed(before: Wanted, after: Wanted) -> set[str]:
    """Return the names of the services that a change concerns."""
    old, new = before.services, after.services
    states, later = before.overrides.admin_states, after.overrides.admin_states
    names = {name for name, _ in dict(states.items() ^ later.items())}
    return names | {name for name, one in old.items() if new.get(name) is not one and new.get(name) != one}


def _of_service(old: Config, new: Config, disabled: set[BackendKey], live: Counts) -> Flows:
    """Count for one service whose muxes remember flows; ``new`` may be without it."""
    (service,) = old.services
    mine = {(service.name, one.name): live.get((service.name, one.name), 0) for one in service.backends}
    cut = sum(count for key, count in mine.items() if key in disabled)
    rest = {key: count for key, count in mine.items() if key not in disabled}
    totals = flows(old, new, rest)[service.name]
    return Flows(sum(mine.values()), totals.move + cut, totals.remain)


def _without_state(before: Wanted, after: Wanted, service: Service, live: Counts) -> Flows:
    """Count for one service whose connections follow their slots."""
    old, new = (effective(_part(one, service.name), frozenset(), one.overrides.admin_states) for one in (before, after))
    own = sum(live.get((service.name, backend.name), 0) for backend in service.backends)
    has_same_slots = bool(new.services) and _hashed(old) == _hashed(new)
    return Flows(own, round(own * (least_moved(old.services[0], new.services[0]) if has_same_slots else 1.0)))


def _hashed(part: Config) -> tuple[int, int]:
    """Return what finds a packet's slot in the configuration's only service."""
    return part.maglev.seed, slots_of(part, part.services[0])


def _part(wanted: Wanted, name: str) -> Config:
    """Return the configuration with one service, or without it if there is none of this name."""
    service: Service | None = wanted.services.get(name)
    services = () if service is None else (service,)
    return (wanted.config or NOTHING).model_copy(update={"services": services})


def _newly_disabled(before: Wanted, after: Wanted) -> set[BackendKey]:
    states = before.overrides.admin_states
    return {
        key for key, state in after.overrides.admin_states.items()
        if state == "disable" and states.get(key) != "disable"
    }  # fmt: skip
