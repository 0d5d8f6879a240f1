"""Orphans: flows of backends that have gone from a mux's tables, whose entries are there until others need the room.

No look-up takes them for alive any more, so live_flows does not have them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address, from_pair, port_from_wire
from lbmux.config.models import Service
from lbmux.datapath.tables import CLOSING, GONE
from lbmux.tables.live_flows import copies
from lbmux.tables.mux_tables import ticks
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.regions import now_ticks

Ends = tuple[Address, int, Address, int]
"""Client and its port, VIP and its port."""


@dataclass(frozen=True)
class Backends:
    """Those of one moment, taken at next to no cost: of each row whether it was there, and its generation."""

    snapshot: Snapshot
    there: NDArray[np.bool_]
    generations: NDArray[np.uint8]

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Backends":
        rows = snapshot.tables.backends
        return cls(snapshot, rows["state"] != GONE, rows["generation"].copy())

    def lost(self) -> list[int]:
        """The rows whose backend has gone since."""
        now = self.of(self.snapshot)
        return np.flatnonzero(self.there & ~(now.there & (now.generations == self.generations))).tolist()


def lost_flows(before: Backends, rows: list[int]) -> Iterator[Ends]:
    """The connections that those rows had, of services that end them when a backend dies; of all workers, each once.

    Not those that were about to end, or idle for so long that they count as over.
    """
    owners = before.snapshot.owners
    services = {row: owners[row][0] for row in rows if row in owners}
    services = {row: one for row, one in services.items() if one.protocol == "tcp" and one.on_down == "reset"}
    limits = np.full(len(before.there), -1, np.int64)  # of others none is meant, however short it has been idle
    limits[list(services)] = [ticks(service.idle_s) for service in services.values()]
    now, seen = np.uint32(now_ticks()), set[Ends]()
    for _, places in copies(before.snapshot.tables) if services else ():
        targets = places["target"] % len(limits)
        idle = np.maximum((now - places["seen"]).view(np.int32), 0)  # another worker's clock may be ahead
        meant = (idle <= limits[targets]) & (places["generation"] == before.generations[targets])
        meant &= (places["state"] != 0) & (places["state"] != CLOSING)
        for entry in places[meant]:
            ends = _ends(services[int(entry["target"])], entry)
            if ends not in seen:
                seen.add(ends)
                yield ends


def _ends(service: Service, entry: np.void) -> Ends:
    ports, client = int(entry["ports"]), from_pair(int(entry["high"]), int(entry["low"]))
    return client, port_from_wire(ports & 0xFFFF), service.vip, port_from_wire(ports >> 16)
