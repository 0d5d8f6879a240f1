"""Assigns rows of tables to their owners, so that each owner keeps its row across reloads and restarts.

A row's identity is a hash of its owner, stored in the tables themselves; zero means a row that was never used.
"""

from collections.abc import Collection, Iterable
from typing import Any

import mmh3
import numpy as np
from numpy.typing import NDArray

from lbmux.errors import TableError


def identity(*parts: object) -> int:
    """Return a hash of the parts: 64 bits, never zero."""
    return int(mmh3.hash64(" ".join(map(str, parts)), signed=False)[0]) | 1


def assign(table: str, rows: NDArray[Any], wanted: Iterable[int], in_use: Collection[int]) -> dict[int, int]:
    """Return a row for each wanted identity: its present row, else an unused one, else one that is not ``in_use``.

    ``rows`` has the present identities and does not change. Raises TableError if there are too few rows: those
    ``in_use`` stay until the change is complete.
    """
    wanted = list(wanted)
    present = np.flatnonzero(np.isin(rows, np.array(wanted, rows.dtype)))
    row_of = {int(rows[row]): int(row) for row in present}
    places = {value: row_of[value] for value in wanted if value in row_of}
    missing = [value for value in wanted if value not in row_of]
    if missing:
        reserved = {*places.values(), *in_use}
        fresh = np.flatnonzero(rows == 0).tolist()
        reused = [row for row in np.flatnonzero(rows).tolist() if row not in reserved]
        if len(missing) > len(fresh) + len(reused):
            raise TableError(table, len(reserved) + len(missing), len(rows))
        places.update(zip(missing, fresh + reused, strict=False))
    return places
