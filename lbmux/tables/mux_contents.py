"""The contents of a mux's tables: those in force, and a plan of those that replace them.

Both are made for one configuration (lbmux.tables.mux_plan) and do not change once they are in force.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address
from lbmux.config.models import BackendKey, Config, Service
from lbmux.datapath.tables import BACKEND, RATE_BLOCKS, SERVICE
from lbmux.tables import slot_pairs
from lbmux.tables.slot_allocation import Range


@dataclass(frozen=True)
class PlacedService:
    """A service with its row, and with the rows of its backends by their names."""

    service: Service
    row: int
    backends: Mapping[str, int]


class BackendRows(Mapping[BackendKey, int]):
    """The rows of backends by (service, backend) names: a view of the placed services."""

    def __init__(self, services: Mapping[str, PlacedService]) -> None:
        self._services = services

    def __getitem__(self, key: BackendKey) -> int:
        return self._services[key[0]].backends[key[1]]

    def __iter__(self) -> Iterator[BackendKey]:
        return ((name, backend) for name, placed in self._services.items() for backend in placed.backends)

    def __len__(self) -> int:
        return sum(len(placed.backends) for placed in self._services.values())


@dataclass(frozen=True)
class Contents:
    """The contents of the tables. ``lists``: the place of each service row's access list."""

    config: Config | None = None
    services: Mapping[str, PlacedService] = field(default_factory=dict)
    lists: Mapping[int, Range] = field(default_factory=dict)
    built: Mapping[int, Any] = field(default_factory=dict)
    """The input of each service row's Maglev table; missing if unknown."""

    @property
    def rows(self) -> BackendRows:
        return BackendRows(self.services)

    @cached_property
    def vips(self) -> dict[Address, int]:
        """The row of each VIP's usage: the first row of its services."""
        rows = dict[Address, int]()
        for placed in self.services.values():
            vip = placed.service.vip
            rows[vip] = min(placed.row, rows.get(vip, placed.row))
        return rows


@dataclass
class Plan:
    """The contents that ``commit`` puts in force in place of ``before``."""

    before: Contents
    config: Config
    names: NDArray[Any]
    salt: int
    services: NDArray[Any] = field(default_factory=lambda: np.zeros(0, SERVICE))
    placed: dict[str, PlacedService] = field(default_factory=dict)
    lists: dict[int, Range] = field(default_factory=dict)
    built: dict[int, Any] = field(default_factory=dict)
    places: dict[int, Range] = field(default_factory=dict)
    """The place of each service row's Maglev table."""
    former: dict[int, Range] = field(default_factory=dict)
    """The place of each service row's former table, which has the bases."""
    changed: set[int] = field(default_factory=set)
    """The rows of services that are changed, added or removed."""
    identities: dict[int, int] = field(default_factory=dict)
    """The identities of services that are changed or added, by row."""
    prices: NDArray[np.uint32] = field(default_factory=lambda: np.zeros((RATE_BLOCKS, 0), np.uint32))
    """The prices of the limits of these services, by kind of limit."""
    longest_idle: int = 0
    """The longest idle limit of all services, in ticks."""
    any_port: bool = False
    """Whether some service has no port."""
    began: dict[int, NDArray[np.uint32]] = field(default_factory=dict)
    """The slots that start to change, by service row."""
    backend_rows: list[int] = field(default_factory=list)
    """The rows of the backends of services that are changed or added."""
    backend_identities: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    backend_contents: NDArray[Any] = field(default_factory=lambda: np.zeros(0, BACKEND))
    backend_prices: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    """The prices of new flows to these backends."""
    removed: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """For each row of backends, whether its backend is removed or missing."""
    gone: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """The rows of backends that are in use before the commit, and not after it."""
    slots: list[tuple[int, slot_pairs.Pairs]] = field(default_factory=list)
    """Maglev tables, and the places to write them to."""
    rules: list[tuple[int, NDArray[Any]]] = field(default_factory=list)
    """Access lists, and the places to write them to."""

    @property
    def contents(self) -> Contents:
        return Contents(self.config, self.placed, self.lists, self.built)
