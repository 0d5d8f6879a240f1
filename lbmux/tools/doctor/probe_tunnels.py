"""Encapsulate probes exactly as the mux's data path would.

It uses the data path's own functions and table rows, so every kind of tunnel is supported.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from lbmux.addresses import Address
from lbmux.config.models import Config
from lbmux.daemons.probe_tables import bare
from lbmux.daemons.tunnel_probes import PORTS, towards
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import HEADROOM_BYTES, Batch
from lbmux.linux.next_hops import NextHop
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables
from lbmux.wire.header_layouts import ETHERNET_BYTES
from lbmux.wire.packet import ethernet_header

LONGEST = 65535
SOMEWHERE = NextHop(0, 1, 1, LONGEST)
"""A placeholder for hosts whose packets the kernel routes: the MAC address is not used."""
Key = tuple[str, str]
"""Service and backend, by name."""


class Tunnels:
    def __init__(
        self, config: Config, own: Iterable[Address], keys: set[Key], hops: Mapping[Address, NextHop | None]
    ) -> None:
        """Prepare tunnels to the backends ``keys``.

        ``own``: the mux's addresses.  ``hops``: next hops of hosts whose frames are sent without the kernel's routing.
        """
        services = tuple(
            bare(service.model_copy(update={"backends": tuple(backend for backend in service.backends
                                                              if (service.name, backend.name) in keys)}))
            for service in config.services
        )  # fmt: skip
        config = config.model_copy(update={"services": services})
        self._mux = MuxTables(Tables.allocate(replace(sizes_for(config), buckets=1, slots=1)), *own)
        self._mux.commit(self._mux.plan(config))
        for host in self._mux.destinations():
            self._mux.set_next_hop(host, hops.get(host, SOMEWHERE))
        self._worker, self._batch = Worker(self._mux.tables), Batch(1)
        self._memory = np.zeros(HEADROOM_BYTES + ETHERNET_BYTES + LONGEST, np.uint8)
        self._rows = np.full((2, PORTS), -1, np.int32)

    def overhead_bytes(self, key: Key) -> int:
        """Bytes that encapsulation adds."""
        return int(self._mux.tables.backends["overhead_bytes"][self._mux.rows[key]])

    def wrap(self, packet: bytes, version: int, port: int, key: Key) -> tuple[bytes, int] | None:
        """Encapsulate an IP packet sent from ``port``: the frame and its interface index; None without a next hop."""
        frame, batch = ethernet_header(version) + packet, self._batch
        self._memory[HEADROOM_BYTES : HEADROOM_BYTES + len(frame)] = np.frombuffer(frame, np.uint8)
        self._rows[:, port] = self._mux.rows[key]
        batch.address[0], batch.length[0] = self._memory.ctypes.data + HEADROOM_BYTES, len(frame)
        towards(
            self._worker.address, self._rows, batch.address, batch.length, batch.verdict, batch.interface, batch.flags,
            batch.target, 1,
        )  # fmt: skip
        if batch.verdict[0] != Verdict.FORWARDED:
            return None
        start = int(batch.address[0]) - self._memory.ctypes.data
        return self._memory[start : start + int(batch.length[0])].tobytes(), int(batch.interface[0])
