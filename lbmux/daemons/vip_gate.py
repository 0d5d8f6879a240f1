"""Opens and closes a mux's gate, reads what it counts by VIP, and tells it which VIPs are black holes."""

from collections.abc import Mapping
from math import log

import numpy as np

from lbmux.addresses import Address
from lbmux.daemons.drivers import Driver
from lbmux.datapath.tables import SOURCE_BITS, SOURCE_BITS_AT, TICK_SHIFT, VIP_USAGE
from lbmux.metrics.black_holes import Usage
from lbmux.tables.mux_tables import MuxTables
from lbmux.targets.regions import now_ticks

COUNTS = ("packets", "begins", "judged", "follows", "begun", "completed")


class VipGate:
    """The gate is a program in the kernel, or a setting of the data path in user space (datapath.gate)."""

    def __init__(self, driver: Driver, mux: MuxTables) -> None:
        self._driver, self._mux, self._rows = driver, mux, mux.tables.vips
        self._before = dict[Address, tuple[int, tuple[int, ...]]]()
        self.is_open = False

    def set(self, is_open: bool) -> None:
        """Open or close it. Raise SetupError or BpfError if the kernel's program is not attached."""
        if self._driver.kernel is None:
            self._mux.tables.settings[0]["gated"] = is_open
        else:
            self._driver.kernel.gate(is_open)
        self.is_open = is_open
        self._before = {}

    def read(self) -> dict[Address, Usage]:
        """Return what came for each VIP since the last reading; nothing for a VIP that is read for the first time."""
        counts, usage = dict[Address, tuple[int, tuple[int, ...]]](), dict[Address, Usage]()
        bits = self._rows.view(np.uint8).reshape(-1, VIP_USAGE.itemsize)[:, SOURCE_BITS_AT:]
        for vip, row in self._mux.vips.items():
            counts[vip] = row, tuple(int(self._rows[row][name]) for name in COUNTS)
            unset = SOURCE_BITS - int(np.unpackbits(bits[row]).sum())
            bits[row] = 0
            before = self._before.get(vip)
            if before is not None and before[0] == row:
                packets, begins, judged, follows, begun, completed = np.subtract(counts[vip][1], before[1]).tolist()
                sources = SOURCE_BITS * log(SOURCE_BITS / max(unset, 1))
                usage[vip] = Usage(begins, packets - begins, judged, follows, begun, completed, sources)
        self._before = counts
        return usage

    def drop(self, seconds: Mapping[Address, float]) -> None:
        """Make exactly these VIPs black holes, for so many seconds from now unless this is called again."""
        until, now = np.zeros(len(self._rows), np.uint32), now_ticks()
        for vip, row in self._mux.vips.items():
            if vip in seconds:
                until[row] = max((now + (round(seconds[vip] * 1e9) >> TICK_SHIFT)) & 0xFFFFFFFF, 1)
        self._rows["until"] = until

    def dropped(self, vip: Address) -> int:
        """Return how many packets to a VIP the gate has dropped."""
        row = self._mux.vips.get(vip)  # None while a reload removes the VIP
        return 0 if row is None else int(self._rows[row]["dropped"])
