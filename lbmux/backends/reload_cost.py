"""Estimates what a reload would move between two configurations.  Pure.

For each service, by name: the backends that are added, removed and changed, and the share of Maglev slots that get
another backend.  A slot decides where new flows go, and flows whose entry was lost.  Flows with an entry stay with
their backend; a removed backend stays for them (`removal`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lbmux.config.models import Config, Service, slots_of
from lbmux.tables import maglev

Change = Literal["added", "removed", "changed"]
NO_BACKEND = -1


@dataclass(frozen=True)
class ServiceDiff:
    """``slots_moved``: the share of the new table's slots whose backend changes; None if there is no table."""

    service: str
    change: Change
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    slots_moved: float | None = None


def diff(old: Config, new: Config) -> list[ServiceDiff]:
    """Return the services that differ, in the order of ``old``, followed by those added in ``new``."""
    before = {service.name: service for service in old.services}
    after = {service.name: service for service in new.services}
    return [*_of_old(old, new, before, after), *(_whole(after[n], "added") for n in after if n not in before)]


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
    """Return the share of slots whose backend changes; 1.0 if the VIP, the table's size or its seed changes."""
    if _hashed(old, before) != _hashed(new, after):
        return 1.0
    size = slots_of(after, new)
    numbers = {name: at for at, name in enumerate(sorted({b.name for s in (old, new) for b in s.backends}))}
    tables = [_table(service, numbers, size) for service in (old, new)]
    if not any(table.size and table.max() > NO_BACKEND for table in tables):
        return None
    return float(np.count_nonzero(tables[0] != tables[1])) / size


def _hashed(service: Service, config: Config) -> tuple[object, ...]:
    """Return what decides the slot of a packet."""
    return service.vip, service.protocol, service.port, config.maglev.seed, slots_of(config, service)


def _table(service: Service, numbers: dict[str, int], size: int) -> NDArray[np.int64]:
    live = sorted((backend.name, backend.weight) for backend in service.backends if backend.weight)
    if not live:
        return np.full(size, NO_BACKEND)
    names, weights = zip(*live, strict=True)
    return np.array([numbers[name] for name in names], np.int64)[maglev.build(names, weights, size)]
