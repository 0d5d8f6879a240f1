"""Fills one copy of the address map, which holds every address that the data path looks up.

The data path's own hash function (datapath.match) places the entries, so the two cannot disagree.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address, port_to_wire, to_pair
from lbmux.codegen.compiled import address_of, compiled
from lbmux.datapath.match import PROBES, address_hash
from lbmux.datapath.memory import at_address, int64
from lbmux.datapath.tables import ADDRESS_ENTRY, SERVER_ID, address_entry_row, settings_row
from lbmux.errors import TableError
from lbmux.targets.regions import Tables
from lbmux.wire.numbers import UDP_PROTOCOL

SALTS = 32
"""Number of salts to try before the table counts as too small."""

FULLEST = 4
"""One place in four may be taken. At one in two, no salt puts every entry within PROBES places of its own."""


@dataclass(frozen=True)
class Name:
    """Maps an address of a kind, with port and protocol or 0 and 0, to a row of another table."""

    kind: int
    address: Address
    port: int
    protocol: int
    index: int

    def row(self) -> tuple[int, ...]:
        return (*to_pair(self.address), port_to_wire(self.port), self.protocol, self.kind, self.index, 0)


@dataclass(frozen=True)
class ServerId:
    """Maps a server ID in a QUIC connection ID, of a service's row, to a backend's row."""

    identifier: bytes
    service: int
    backend: int

    def row(self) -> tuple[int, ...]:
        return int.from_bytes(self.identifier, "little"), 0, self.service, UDP_PROTOCOL, SERVER_ID, self.backend, 0


def fill(tables: Tables, names: Sequence[Name | ServerId]) -> tuple[NDArray[Any], int]:
    """Return a copy of the address map with these entries, and its salt. Raise TableError if they do not fit."""
    size = tables.sizes.addresses
    limit = size // FULLEST
    if len(names) > limit:
        raise TableError("addresses", len(names), limit)
    entries = np.array([name.row() for name in names], ADDRESS_ENTRY)
    for _ in range(SALTS):
        salt, copy = secrets.randbits(32), np.zeros(size, ADDRESS_ENTRY)
        if _place(address_of(tables.settings), salt, address_of(copy), size, address_of(entries), len(names)):
            return copy, salt
    raise TableError("addresses", len(names), limit)


@compiled
def _place(settings, salt, table, size, entries, count):  # type: ignore[no-untyped-def]
    """Write the entries. Return False if one would be more than PROBES places from its own."""
    setting = settings_row(at_address(settings), 0)
    copy, source = at_address(table), at_address(entries)
    for index in range(count):
        entry = address_entry_row(source, index)
        place = int64(address_hash(setting, salt, entry.kind, entry.high, entry.low, entry.port, entry.protocol))
        placed = False
        for probe in range(PROBES):
            row = address_entry_row(copy, (place + probe) & (size - 1))
            if row.kind == 0:
                row.high, row.low, row.port, row.protocol = entry.high, entry.low, entry.port, entry.protocol
                row.kind, row.index = entry.kind, entry.index
                placed = True
                break
        if not placed:
            return False
    return True
