"""Finds lost flows: their backend is gone from a mux's tables, but their entries have not been overwritten yet.

Look-ups ignore these entries, so live_flows does not list them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address, from_pair, port_from_wire
from lbmux.config.models import Service
from lbmux.datapath.tables import CLOSING, GONE
from lbmux.tables.live_flows import copies
from lbmux.tables.mux_rows import ticks
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.regions import now_ticks

Ends = tuple[Address, int, Address, int]
"""The client's address and port, the VIP and its port."""


@dataclass(frozen=True)
class Backends:
    """The backends at one moment: for each row, whether it was in use, and its generation."""

    snapshot: Snapshot
    in_use: NDArray[np.bool_]
    generations: NDArray[np.uint8]

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Backends":
        rows = snapshot.tables.backends
        return cls(snapshot, rows["state"] != GONE, rows["generation"].copy())

    def lost(self) -> list[int]:
        """Return the rows whose backend is gone since then."""
        now = self.of(self.snapshot)
        return np.flatnonzero(self.in_use & ~(now.in_use & (now.generations == self.generations))).tolist()

    def of_services(self, rows: list[int], names: set[str]) -> list[int]:
        """Return the rows whose service has one of these names."""
        owners = self.snapshot.owners
        return [row for row in rows if row in owners and owners[row][0].name in names]

    def only(self, rows: list[int]) -> "Backends":
        """Return a copy in which only these rows are in use."""
        in_use = np.zeros_like(self.in_use)
        in_use[rows] = True
        return replace(self, in_use=in_use)


def lost_flows(before: Backends, rows: list[int]) -> Iterator[Ends]:
    """Yield the TCP connections of these rows once each, for services with ``on_down: reset``.

    Connections that are closing or have passed their idle timeout are left out.
    """
    owners = before.snapshot.owners
    services = {row: owners[row][0] for row in rows if row in owners}
    services = {row: one for row, one in services.items() if one.protocol == "tcp" and one.on_down == "reset"}
    limits = np.full(len(before.in_use), -1, np.int64)  # -1 excludes flows of all other rows
    limits[list(services)] = [ticks(service.idle_s) for service in services.values()]
    now, seen = np.uint32(now_ticks()), set[Ends]()
    for places in copies(before.snapshot.tables) if services else ():
        targets = places["target"] % len(limits)
        idle = np.maximum((now - places["seen"]).view(np.int32), 0)  # another CPU's clock may be ahead
        is_lost = (idle <= limits[targets]) & (places["generation"] == before.generations[targets])
        is_lost &= (places["state"] != 0) & (places["state"] != CLOSING)
        for entry in places[is_lost]:
            ends = _ends(services[int(entry["target"])], entry)
            if ends not in seen:
                seen.add(ends)
                yield ends


def _ends(service: Service, entry: np.void) -> Ends:
    ports, client = int(entry["ports"]), from_pair(int(entry["high"]), int(entry["low"]))
    return client, port_from_wire(ports & 0xFFFF), service.vip, port_from_wire(ports >> 16)
