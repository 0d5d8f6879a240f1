"""Maglev tables for the page: a service's as it is, and as a proposed configuration would have it.

Built by the muxes' own function from names and weights, which is all that a table depends on.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.control.config import Config
from lbmux.control.config_file import load
from lbmux.control.maglev import build, disruption
from lbmux.errors import ConfigError

NOBODY = 0xFFFF
"""Of a slot where no backend has a weight."""


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
        places = np.full(NOBODY + 1, NOBODY, np.uint16)
        places[: len(self.names)] = [names.index(name) for name in self.names]
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
        "shares": [
            [round(float(np.mean(slots == at)), 5) if len(slots) else 0.0 for slots in (old, new)]
            for at in range(len(names))
        ],
    }  # fmt: skip


def read(text: str) -> Config:
    """A configuration that was pasted.  ConfigError with its lines, by the name that the page gives it."""
    with TemporaryDirectory(prefix="lbmux-web-") as directory:
        path = Path(directory, "proposal.yaml")
        path.write_text(text)
        try:
            return load(path)
        except ConfigError as error:
            raise ConfigError(Path("proposal"), error.problems) from None
