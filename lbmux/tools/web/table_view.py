"""Maglev tables for the page: a service's as it is, and as a proposed configuration would have it.

Built by the muxes' own function from names and weights, which is all that a table depends on.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.config.loader import parse
from lbmux.config.models import MAX_SLOTS, Config
from lbmux.errors import LbmuxError
from lbmux.plurals import counted
from lbmux.tables.maglev import build, disruption

NOBODY = 0xFFFF
"""Of a slot where no backend has a weight."""
MOST_SLOTS = 2 * MAX_SLOTS
"""That one answer compares: the largest table before and after; about 30 MB of JSON."""


@dataclass(frozen=True)
class Weights:
    """What a table is built from: its backends' weights and its size."""

    weights: dict[str, int]
    size: int

    def table(self) -> "Table":
        return Table.of(self.weights, self.size)


@dataclass(frozen=True)
class Table:
    """``slots`` has indices into ``names``."""

    names: tuple[str, ...]
    slots: NDArray[np.uint16]

    @classmethod
    def of(cls, weights: dict[str, int], size: int) -> "Table":
        names = tuple(sorted(weights))
        if not size or not any(weights.values()):
            return cls(names, np.full(size, NOBODY, np.uint16))
        return cls(names, build(names, [weights[name] for name in names], size))

    def renamed(self, names: tuple[str, ...]) -> NDArray[np.uint16]:
        """The slots as indices into other names, which have all of these."""
        at = {name: place for place, name in enumerate(names)}
        places = np.full(NOBODY + 1, NOBODY, np.uint16)
        places[: len(self.names)] = [at[name] for name in self.names]
        return places[self.slots]

    def as_json(self) -> dict[str, Any]:
        return {"names": self.names, "size": len(self.slots), "slots": packed(self.slots)}


def packed(slots: NDArray[np.uint16]) -> str:
    """Little endian, as browsers' typed arrays are on every machine that there is."""
    return base64.b64encode(slots.astype("<u2").tobytes()).decode()


def change(name: str, now: Table, then: Table) -> dict[str, Any]:
    """A service's table before and after, in the same names.  Another size moves everything that it moves."""
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
    """Of the slots, each name's part."""
    counts = np.bincount(slots, minlength=NOBODY + 1)[:names]
    return np.round(counts / max(1, len(slots)), 5)


def read(text: bytes) -> Config:
    """A configuration that was pasted.  ConfigError with its lines, by the name that the page gives it."""
    return parse(text, Path("proposal"))


def moves(now: dict[str, Weights], text: bytes, name: str | None) -> list[dict[str, Any]]:
    """What a proposed configuration moves in each service, or in the one of that ``name``.

    ``now``: of each service.  ConfigError where the text is not usable; LbmuxError where the answer would be too large.
    """
    config = read(text)
    size = config.maglev.size
    then = {one.name: Weights({each.name: each.weight for each in one.backends}, size) for one in config.services}
    names = [one for one in {**now, **then} if name in (None, one)]
    nothing = Weights({}, size)
    pairs = [(one, now.get(one, nothing), then.get(one, nothing)) for one in names]
    slots = sum(old.size + new.size for _, old, new in pairs)
    if slots > MOST_SLOTS:
        wanted = f"{counted(len(names), 'service')} with {slots} slots, before and after"
        raise LbmuxError(f"{wanted}: at most {MOST_SLOTS} at a time")
    return [change(one, old.table(), new.table()) for one, old, new in pairs]
