"""Maglev tables for the page: a service's current table, and the table of a proposed configuration.

They are built by the muxes' own function from names and weights, on which alone a table depends.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.config.loader import parse
from lbmux.config.models import Config, slots_of
from lbmux.config.table_models import MAX_SLOTS
from lbmux.errors import LbmuxError
from lbmux.plurals import counted
from lbmux.tables.maglev import build, disruption

NO_BACKEND = 0xFFFF
"""The value of a slot if no backend has a weight."""
MOST_SLOTS = 2 * MAX_SLOTS
"""Slots that one answer compares: the largest table before and after, about 30 MB of JSON."""


@dataclass(frozen=True)
class Weights:
    """The input of a table: its backends' weights and its size."""

    weights: dict[str, int]
    size: int

    def empty(self) -> "Weights":
        """Return the input of a table of this size without backends."""
        return Weights({}, self.size)

    def table(self) -> "Table":
        return Table.of(self.weights, self.size)


@dataclass(frozen=True)
class Table:
    """A Maglev table.  ``slots`` has indices into ``names``."""

    names: tuple[str, ...]
    slots: NDArray[np.uint16]

    @classmethod
    def of(cls, weights: dict[str, int], size: int) -> "Table":
        names = tuple(sorted(weights))
        if not size or not any(weights.values()):
            return cls(names, np.full(size, NO_BACKEND, np.uint16))
        return cls(names, build(names, [weights[name] for name in names], size))

    def renamed(self, names: tuple[str, ...]) -> NDArray[np.uint16]:
        """Return the slots as indices into other names, which must contain all of these."""
        at = {name: place for place, name in enumerate(names)}
        places = np.full(NO_BACKEND + 1, NO_BACKEND, np.uint16)
        places[: len(self.names)] = [at[name] for name in self.names]
        return places[self.slots]

    def as_json(self) -> dict[str, Any]:
        return {"names": self.names, "size": len(self.slots), "slots": packed(self.slots)}


def packed(slots: NDArray[np.uint16]) -> str:
    """Slots as base64 of little-endian 16-bit integers, which browsers read as a typed array."""
    return base64.b64encode(slots.astype("<u2").tobytes()).decode()


def change(name: str, now: Table, then: Table) -> dict[str, Any]:
    """Compare a service's tables before and after.  With another size, all slots count as moved."""
    names = tuple(dict.fromkeys((*now.names, *then.names)))
    old, new = now.renamed(names), then.renamed(names)
    same_size = len(old) == len(new)
    moved = disruption(old, new) if same_size else 1.0
    return {
        "service": name, "names": names, "size": len(new), "slots": packed(new), "moved": round(moved, 5),
        "changed": packed((old != new).astype(np.uint16) if same_size else np.ones(len(new), np.uint16)),
        "shares": np.stack([_shares(old, len(names)), _shares(new, len(names))], axis=1).tolist(),
    }  # fmt: skip


def _shares(slots: NDArray[np.uint16], names: int) -> NDArray[np.float64]:
    """Each name's share of the slots."""
    counts = np.bincount(slots, minlength=NO_BACKEND + 1)[:names]
    return np.round(counts / max(1, len(slots)), 5)


def read(text: bytes) -> Config:
    """Parse a proposed configuration.  ConfigError with line numbers, under the file name `proposal`."""
    return parse(text, Path("proposal"))


def moves(now: dict[str, Weights], text: bytes, name: str | None) -> list[dict[str, Any]]:
    """Return what a proposed configuration moves in each service, or in the service ``name``.

    ``now``: the current weights by service.  Raise ConfigError if the text is invalid, LbmuxError if the answer is
    too large.
    """
    config = read(text)
    then = {
        one.name: Weights({each.name: each.weight for each in one.backends}, slots_of(config, one))
        for one in config.services
    }
    names = [one for one in {**now, **then} if name in (None, one)]
    pairs = [(one, now.get(one) or then[one].empty(), then.get(one) or now[one].empty()) for one in names]
    slots = sum(old.size + new.size for _, old, new in pairs)
    if slots > MOST_SLOTS:
        wanted = f"{counted(len(names), 'service')} with {slots} slots, before and after"
        raise LbmuxError(f"{wanted}: at most {MOST_SLOTS} at a time")
    return [change(one, old.table(), new.table()) for one, old, new in pairs]
