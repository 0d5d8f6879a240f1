"""How much of the Maglev tables moves from one configuration to another: what a reload would cost.  Pure.

Per service, by name: the backends that come, go and change, and the share of slots whose backend is another one.  A
slot is where new flows go, and those whose entry was lost; flows with an entry stay while their backend is there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lbmux.control import maglev
from lbmux.control.config import Config, Service

Change = Literal["added", "removed", "changed"]
NOBODY = -1


@dataclass(frozen=True)
class ServiceDiff:
    """``slots_moved``: the share of the new table's slots with another backend than before; None without a table."""

    service: str
    change: Change
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    slots_moved: float | None = None


def diff(old: Config, new: Config) -> list[ServiceDiff]:
    """The services that differ, in the order of ``old`` and then of ``new``."""
    before = {service.name: service for service in old.services}
    after = {service.name: service for service in new.services}
    return [*_of_old(old, new, before, after), *(_whole(after[n], "added") for n in after if n not in before)]


def flows_that_move(old: Config, new: Config, live: Mapping[tuple[str, str], int]) -> tuple[int, int]:
    """(live flows whose backend ``new`` does not have, all of them); ``live``: by the names of service and backend.

    As the tables tell backends apart: by addresses and ports, not by name.
    """
    kept = {(*_ends(service), b.dip, b.port, b.tunnel_to) for service in new.services for b in service.backends}
    moved = sum(
        live.get((service.name, b.name), 0)
        for service in old.services
        for b in service.backends
        if (*_ends(service), b.dip, b.port, b.tunnel_to) not in kept
    )
    return moved, sum(live.values())


def _ends(service: Service) -> tuple[object, ...]:
    return service.vip, service.protocol, service.port


def _of_old(old: Config, new: Config, before: dict[str, Service], after: dict[str, Service]) -> Iterator[ServiceDiff]:
    for name, service in before.items():
        if name not in after:
            yield _whole(service, "removed")
        elif service != after[name] or old.maglev != new.maglev:
            yield _of_service(service, after[name], old, new)


def _whole(service: Service, change: Change) -> ServiceDiff:
    names = tuple(backend.name for backend in service.backends)
    return ServiceDiff(service.name, change, **{change: names})  # type: ignore[arg-type]


def _of_service(old: Service, new: Service, before: Config, after: Config) -> ServiceDiff:
    had = {backend.name: backend for backend in old.backends}
    has = {backend.name: backend for backend in new.backends}
    return ServiceDiff(
        new.name,
        "changed",
        tuple(name for name in has if name not in had),
        tuple(name for name in had if name not in has),
        tuple(name for name in has if name in had and has[name] != had[name]),
        slots_moved(old, new, before, after),
    )


def slots_moved(old: Service, new: Service, before: Config, after: Config) -> float | None:
    """Whether by another backend, or by another table (its size or seed): then each slot has moved."""
    if (old.vip, old.protocol, old.port) != (new.vip, new.protocol, new.port) or before.maglev != after.maglev:
        return 1.0
    numbers = {name: at for at, name in enumerate(sorted({b.name for s in (old, new) for b in s.backends}))}
    tables = [_table(service, numbers, after.maglev.size) for service in (old, new)]
    if not any(table.size and table.max() > NOBODY for table in tables):
        return None
    return float(np.count_nonzero(tables[0] != tables[1])) / after.maglev.size


def _table(service: Service, numbers: dict[str, int], size: int) -> NDArray[np.int64]:
    live = sorted((backend.name, backend.weight) for backend in service.backends if backend.weight)
    if not live:
        return np.full(size, NOBODY)
    names, weights = zip(*live, strict=True)
    return np.array([numbers[name] for name in names], np.int64)[maglev.build(names, weights, size)]
