"""The tables in Python: NumPy views of the regions that the data path uses.

Nothing is copied: a write to a view takes effect at once. The memory is anonymous for the native target and a mapped
BPF map if a kernel program shares it.
"""

import contextlib
import mmap
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import port_to_wire
from lbmux.datapath.tables import (
    LOOKUP_ROWS,
    MAGIC,
    PADDING,
    RATE_BLOCKS,
    ROWS,
    SOURCE_CELLS,
    TICK_SHIFT,
    VERSION,
    WAYS,
    Sizes,
)
from lbmux.datapath.verdicts import VERDICTS
from lbmux.targets import hash_keys
from lbmux.targets.time_namespace import monotonic_offset_ns

CLOCK_MONOTONIC_COARSE = 6  # linux/time.h; the time module does not name it
HUGE_PAGE_BYTES = 1 << 21
OFFSET_NS = monotonic_offset_ns()
GUE_PORT, GENEVE_PORT = 6080, 6081  # IANA's


def now_ticks() -> int:
    """Return the data path's time: CLOCK_MONOTONIC_COARSE in ticks modulo 2**32, as the kernel target reads it."""
    return (time.clock_gettime_ns(CLOCK_MONOTONIC_COARSE) - OFFSET_NS) >> TICK_SHIFT & 0xFFFFFFFF


def description(sizes: Sizes) -> dict[str, Any]:
    """Describe tables of these sizes, for a process of another version that finds them."""
    rows = {name: [list(field) for field in ROWS[name].descr] for name in sizes.regions()}
    return {"version": VERSION, "sizes": asdict(sizes), "padding": PADDING, "rows": rows}


def _anonymous(size: int) -> NDArray[np.uint8]:
    """Return zeroed memory, in huge pages if it is large: a random look-up then costs one miss, not two."""
    memory = mmap.mmap(-1, size)
    if size >= HUGE_PAGE_BYTES:
        with contextlib.suppress(OSError):  # a kernel without huge pages
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


class Tables:
    """All tables of one mux or agent. Attributes are structured arrays; datapath.tables has the layouts."""

    def __init__(self, sizes: Sizes, memory: Mapping[str, NDArray[np.uint8]]) -> None:
        """``memory`` holds each region's bytes, at least as many as ``sizes.regions()`` says."""
        self.sizes = sizes
        self.memory = dict(memory)
        view = {name: memory[name][: size - PADDING].view(ROWS[name]) for name, size in sizes.regions().items()}
        self.settings: NDArray[Any] = view["settings"]
        self.addresses = view["addresses"].reshape(2, sizes.addresses)
        self.services = view["services"].reshape(2, sizes.services)
        self.slots: NDArray[Any] = view["slots"]
        self.rules: NDArray[Any] = view["rules"]
        limits = RATE_BLOCKS * sizes.services
        self.service_rates = view["rates"][:limits].reshape(RATE_BLOCKS, sizes.services)
        self.backend_rates = view["rates"][limits:]
        self.backends: NDArray[Any] = view["backends"]
        self.flows = view["flows"].reshape(sizes.buckets, WAYS)
        self.endpoints: NDArray[Any] = view["endpoints"]
        self.service_identities = view["identities"][: sizes.services]
        self.backend_identities = view["identities"][sizes.services :]
        self.verdicts = view["verdicts"].reshape(sizes.workers, VERDICTS)
        self.lookups: NDArray[np.uint64] = view["lookups"].reshape(sizes.workers, LOOKUP_ROWS)
        self.traffic = view["traffic"].reshape(sizes.workers, sizes.backends)
        self.sources = view["sources"].reshape(sizes.sources, SOURCE_CELLS)
        self.vips: NDArray[Any] = view["vips"]

    @classmethod
    def allocate(cls, sizes: Sizes) -> "Tables":
        """Create tables in anonymous memory. The kernel allocates its pages on first use."""
        tables = cls(sizes, {name: _anonymous(size) for name, size in sizes.regions().items()})
        tables.initialise()
        return tables

    def initialise(self) -> None:
        """Turn zeroed memory into a set of tables: write the magic number, the version and new secret keys."""
        row = self.settings[0]
        row["version"], row["workers"] = self.sizes.version, self.sizes.workers
        row["trusted_ways"], row["untrusted_ways"] = WAYS - 1, WAYS
        row["gue_port"], row["geneve_port"] = port_to_wire(GUE_PORT), port_to_wire(GENEVE_PORT)
        for key in hash_keys.NAMES:
            row[key] = hash_keys.draw(self.sizes.buckets)
        row["magic"] = MAGIC

    @property
    def is_initialised(self) -> bool:
        """Whether this memory holds initialised tables of this version and these sizes."""
        return bool(self.settings[0]["magic"] == MAGIC and self.settings[0]["version"] == self.sizes.version)

    @property
    def active(self) -> int:
        """The number of the copy of the address map and the services that is in force: 0 or 1."""
        return int(self.settings[0]["active"]) & 1
