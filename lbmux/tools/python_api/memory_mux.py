"""`lbmux.Mux`: a mux in memory, without root and without a network, for scripts and notebooks.

It runs the data path of the user-space driver on frames that it is given.  Frames that a real mux passes to its slow
path (fragments, ICMP) end in their verdict here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, SupportsBytes

import numpy as np

from lbmux.addresses import mac_to_int
from lbmux.config.changes import changes
from lbmux.config.loader import load, parse
from lbmux.config.models import Config
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import HEADROOM_BYTES, Batch
from lbmux.linux.next_hops import NextHop
from lbmux.tables import flow_sweep, live_flows
from lbmux.tables.mux_rows import ETHERNET_MTU
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables, now_ticks

OWN_ADDRESSES = ("10.0.0.1", "fd00::1")
"""Sources of outer headers where the configuration has no mux of the family."""
HOP = NextHop(0, mac_to_int("02:00:00:00:00:01"), mac_to_int("02:00:00:00:00:02"), ETHERNET_MTU)
WITHOUT_A_FILE = Path("configuration")

Given = str | Path | Mapping[str, Any] | Config
"""A configuration: a file's path, or what the file would say."""


@dataclass(frozen=True)
class Forwarded:
    """What a mux did with a frame.

    ``verdict``: its name, as in counters (docs/metrics.md): `forwarded`, or why the frame was passed or dropped.
    ``service`` and ``backend``: names, None if no backend was picked.  ``frame``: the frame that was sent, with its
    outer header; None if none was.
    """

    verdict: str
    service: str | None
    backend: str | None
    frame: bytes | None


@dataclass(frozen=True)
class Flow:
    """An entry of the flow table.  ``state``: untrusted, trusted or closing.  ``idle_s``: since its last packet."""

    protocol: str
    source: str
    source_port: int
    destination: str
    destination_port: int
    service: str
    backend: str
    state: str
    idle_s: float


class Mux:
    """A mux's tables and data path.  Its clock is the machine's."""

    def __init__(self, config: Given) -> None:
        """``config``: a file's path, or a mapping as the file's YAML has it.

        Raises ConfigError with every problem of the configuration, and TableError if it does not fit in the tables.
        """
        self.config = _config(config)
        self._tables = Tables.allocate(sizes_for(self.config))
        self._control = MuxTables(self._tables, *self.config.muxes, *map(ip_address, OWN_ADDRESSES))
        self._worker = Worker(self._tables)
        self._worker.forward(Batch(1), 0)  # an empty batch compiles the code before the first frame's time
        self._put_in_force(self.config)

    def forward(self, frame: SupportsBytes) -> Forwarded:
        """Send a frame through the data path.  ``frame`` begins with its Ethernet header; it may be a scapy packet."""
        frame = bytes(frame)
        memory = np.zeros(HEADROOM_BYTES + len(frame), np.uint8)
        memory[HEADROOM_BYTES:] = np.frombuffer(frame, np.uint8)
        batch = Batch(1)
        batch.address[0], batch.length[0], batch.count = memory.ctypes.data + HEADROOM_BYTES, len(frame), 1
        self._worker.forward(batch, now_ticks())
        verdict, row = Verdict(int(batch.verdict[0])), int(batch.target[0])
        service, backend = next((key for key, at in self._control.rows.items() if at == row), (None, None))
        sent = None
        if verdict is Verdict.FORWARDED:
            start = int(batch.address[0]) - memory.ctypes.data
            sent = memory[start : start + int(batch.length[0])].tobytes()
        return Forwarded(verdict.label, service, backend, sent)

    def flows(self) -> list[Flow]:
        """Return the live entries of the flow table.

        A service with `flows: changed` has entries only for flows whose slot a reload has changed.
        """
        rows = live_flows.describe(live_flows.select(Snapshot.of_mux(self._control)))
        return [Flow(**{name: one[name] for name in Flow.__dataclass_fields__}) for one in rows]

    def reload(self, config: Given) -> list[str]:
        """Apply another configuration, as `lbmux reload` does, and return a line for each difference.

        Flows stay with their backends where these still exist.  After an error, ConfigError or TableError, the running
        configuration stays in force.
        """
        after = _config(config)
        lines = changes(self.config, after)
        self._put_in_force(after)
        self.config = after
        return lines

    def _put_in_force(self, config: Config) -> None:
        flow_sweep.sweep(self._control, now_ticks())
        self._control.commit(self._control.plan(config))
        for destination in self._control.destinations():
            self._control.set_next_hop(destination, HOP)


def _config(config: Given) -> Config:
    if isinstance(config, Config):
        return config
    if isinstance(config, Mapping):
        return parse(json.dumps(config, default=str, indent=1).encode(), WITHOUT_A_FILE)
    return load(config)
