"""The tables in kernel maps: the same memory for Python, for native code and for the programs of the kernel.

Each region is a map of one value, mapped into this process.  A program that is loaded here gets their descriptors
and the sizes; it keeps the maps alive, so the tables outlive this process where a program or a pin does.
"""

import os
from collections.abc import Mapping

import numpy as np

from lbmux.datapath.tables import Sizes
from lbmux.datapath.world import LIMIT_SYMBOL, LIMITS, TABLE_SYMBOL
from lbmux.targets.bpf import objects, syscall
from lbmux.targets.bpf.syscall import Attach, Loaded
from lbmux.targets.regions import Tables


class KernelTables:
    """``tables`` on maps whose descriptors, by region, are in ``descriptors``."""

    def __init__(self, sizes: Sizes, descriptors: Mapping[str, int]) -> None:
        self.descriptors = dict(descriptors)
        memory = {
            name: np.frombuffer(syscall.map_value(descriptors[name], size), np.uint8)
            for name, size in sizes.regions().items()
        }
        self.tables = Tables(sizes, memory)

    @classmethod
    def create(cls, sizes: Sizes) -> "KernelTables":
        """New tables, initialised.  The kernel takes all of their memory at once."""
        descriptors: dict[str, int] = {}
        try:
            for name, size in sizes.regions().items():
                descriptors[name] = syscall.create_array(name, size)
            made = cls(sizes, descriptors)
        except BaseException:
            _close(descriptors)
            raise
        made.tables.initialise()
        return made

    def load(self, name: str, attach: Attach) -> Loaded:
        """Load the compiled program ``name`` to work on these tables; BpfError where the kernel refuses it."""
        sizes = self.tables.sizes
        maps = {TABLE_SYMBOL + name: descriptor for name, descriptor in self.descriptors.items()}
        numbers = {LIMIT_SYMBOL + name: getattr(sizes, name) for name in LIMITS}
        code = objects.compiled(name).program(objects.SECTION, maps, numbers)
        return syscall.load_program(attach, code, f"lbmux_{name.rpartition(':')[2]}")

    def close(self) -> None:
        """Close the descriptors; the memory stays mapped as long as ``tables`` is used."""
        _close(self.descriptors)
        self.descriptors = {}

    def __enter__(self) -> "KernelTables":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _close(descriptors: Mapping[str, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)
