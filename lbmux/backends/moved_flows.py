"""Counts the live flows that a change of the configuration moves.  Pure.

Flows with an entry stay with their backend; a removed backend stays for them (`removal`).  Backends are identified by
addresses and ports, as in the tables, not by name.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lbmux.backends.overrides import Overrides, with_overrides
from lbmux.backends.removal import BY_FILE, with_removals
from lbmux.config.models import Backend, BackendKey, Config, Service


@dataclass(frozen=True)
class Flows:
    """Live flows: all, those that move to another backend, and those that remain with a removed backend."""

    all: int = 0
    move: int = 0
    remain: int = 0


def flows(old: Config, new: Config, live: Mapping[BackendKey, int]) -> dict[str, Flows]:
    """Return the flows of each service by its name; ``live`` has the number of live flows by service and backend."""
    after = with_overrides(new, with_removals(new, Overrides(), old, {}, 0, BY_FILE))
    wanted, present = _backends(new), _backends(after)
    every, results = Counter[str](), dict[str, Flows]()
    for (service_name, _), count in live.items():
        every[service_name] += count
    for service in old.services:
        counts = {_end(service, b): live.get((service.name, b.name), 0) for b in service.backends}
        move = sum(count for end, count in counts.items() if end not in present)
        remain = sum(count for end, count in counts.items() if end in present and end not in wanted)
        results[service.name] = Flows(every[service.name], move, remain)
    return results


def _backends(config: Config) -> set[tuple[object, ...]]:
    return {_end(service, backend) for service in config.services for backend in service.backends}


def _end(service: Service, backend: Backend) -> tuple[object, ...]:
    return *_ends(service), backend.dip, backend.port, backend.tunnel_to


def _ends(service: Service) -> tuple[object, ...]:
    return service.vip, service.protocol, service.port


def least_moved(old: Service, new: Service) -> float:
    """Return the share of slots that must get another backend, from the weights alone; 0 without weights before.

    Maglev moves a few more (NSDI 2016, section 5.3).
    """
    after = _shares(new) if _ends(old) == _ends(new) else {}
    return sum(max(0.0, share - after.get(end, 0.0)) for end, share in _shares(old).items())


def _shares(service: Service) -> dict[tuple[object, ...], float]:
    total = sum(backend.weight for backend in service.backends)
    return {_end(service, backend): backend.weight / total for backend in service.backends} if total else {}
