"""One packet on a private copy of a mux's tables: the result of each step, and the frame that leaves.

The packet runs through the data path itself, so nothing in the mux changes. The results of the steps come from the data
path's own functions (tools.dry_run).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lbmux.config.models import Service
from lbmux.datapath.tables import LOOKUPS
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import HEADROOM_BYTES, Batch
from lbmux.tables.row_identities import identity
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.native import Worker
from lbmux.tools.dry_run import ENTRY, RESULTS, bucket_offsets, dry_run
from lbmux.tools.packet_text import ClientPacket


@dataclass(frozen=True)
class Outcome:
    """What the data path did: the verdict, the backend's row, the look-ups that it counted, and the frame."""

    verdict: Verdict
    target: int
    lookups: list[str]
    frame: bytes


class MuxRun:
    """One packet on one private copy of the tables."""

    def __init__(
        self, packet: ClientPacket, snapshot: Snapshot, now: int, interfaces: dict[int, str] | None = None
    ) -> None:
        """``interfaces``: the mux's interface names by index; None for a configuration without a mux."""
        self.packet, self.snapshot, self.now = packet, snapshot, now
        self.is_live, self.interfaces = interfaces is not None, interfaces or {}
        self._context = Worker(snapshot.tables)
        frame = packet.frame()
        self._memory = np.zeros(HEADROOM_BYTES + len(frame), np.uint8)
        self._memory[HEADROOM_BYTES:] = np.frombuffer(frame, np.uint8)
        self.length_bytes = len(frame)
        self.dry_run()

    def dry_run(self) -> None:
        """Run the steps without side effects."""
        self._results = np.full(len(RESULTS), -1, np.int64)
        self._entry = np.full(len(ENTRY), -1, np.int64)
        address = np.uint64(self._memory.ctypes.data + HEADROOM_BYTES)
        dry_run(self._context.address, address, self.length_bytes, self.now, self._results, self._entry)

    def buckets(self) -> list[int]:
        """Return the byte offsets in the flow table of the flow's two candidate buckets."""
        offsets = np.zeros(2, np.int64)
        bucket_offsets(self._context.address, self.result("flow_hash"), offsets)
        return [int(offset) for offset in offsets]

    def result(self, name: str) -> int:
        """Return a result of the dry run, one of RESULTS; -1 if its step was not reached."""
        return int(self._results[RESULTS.index(name)])

    @property
    def service_row(self) -> int:
        return self.result("service")

    def entries(self) -> list[dict[str, Any]]:
        """Return the flow's entry, if it has one."""
        return [dict(zip(ENTRY, self._entry.tolist(), strict=True))] if self._entry[0] > 0 else []

    def service(self) -> Service | None:
        """Return the service that the packet matched."""
        if self.service_row < 0:
            return None
        owner = int(self.snapshot.tables.service_identities[self.service_row])
        return next((s for s in self.snapshot.services if identity(s.vip, s.protocol, s.port) == owner), None)

    def backend_name(self, target: int) -> str | None:
        """Return the name of the backend in a row."""
        owner = self.snapshot.owners.get(target)
        return owner[1].name if owner else None

    def forward(self) -> Outcome:
        """Run the whole data path."""
        batch = Batch(1)
        batch.address[0], batch.length[0] = self._memory.ctypes.data + HEADROOM_BYTES, self.length_bytes
        batch.count = 1
        Worker(self.snapshot.tables).forward(batch, self.now)
        start = int(batch.address[0]) - self._memory.ctypes.data
        frame = self._memory[start : start + int(batch.length[0])].tobytes()
        counts = self.snapshot.tables.lookups[0]
        # In reverse, so that the result of an old entry comes before the packet's own.
        lookups = [name for at, name in reversed(list(enumerate(LOOKUPS))) if counts[at]]
        return Outcome(Verdict(int(batch.verdict[0])), int(batch.target[0]), lookups, frame)
