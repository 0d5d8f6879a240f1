"""The tables in kernel maps: memory that Python, native code and kernel programs share.

Each region is a map with one value, mapped into this process. A program that is loaded here gets the maps' descriptors
and the sizes. Programs and pins keep the maps alive after this process ends. One more map describes the row layouts in
JSON, so that another version can read the tables.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.datapath.context import LIMIT_SYMBOL, LIMITS, TABLE_SYMBOL
from lbmux.datapath.tables import PADDING, VERSION, Sizes
from lbmux.errors import SetupError
from lbmux.targets.bpf import kernel_clock, objects, syscall
from lbmux.targets.bpf.syscall import Attach, Loaded
from lbmux.targets.regions import Tables, description

DESCRIPTION, DESCRIPTION_BYTES = "description", 1 << 14
REACH_BYTES = 1 << 29
"""The largest offset into a map that the verifier allows (BPF_MAX_VAR_OFF)."""
AGENT_SLOT = "lbmux_ring_agent"
"""The symbol of the program slot from which an edge's mux calls the agent's program."""
MUX_SLOT = "lbmux_ring_gated"
"""The symbol of the program slot from which a mux's gate calls the mux's program."""
LESSENED_BY = {"flows": "a smaller flows.limit", "slots": "a smaller maglev.size, or `auto`"}


class KernelTables:
    """``tables`` in maps. ``descriptors`` holds the maps' descriptors by region."""

    def __init__(self, sizes: Sizes, descriptors: Mapping[str, int]) -> None:
        self.descriptors = dict(descriptors)
        self.tables = Tables(sizes, {name: _memory(descriptors[name], size) for name, size in sizes.regions().items()})

    @classmethod
    def create(cls, sizes: Sizes) -> "KernelTables":
        """Create and initialise tables. The kernel allocates all of their memory at once.

        Raise SetupError if a table is larger than a program can address.
        """
        for name, size in sizes.regions().items():
            if size - PADDING > REACH_BYTES:
                reason = f"{size >> 20} MiB exceeds the {REACH_BYTES >> 20} MiB that a kernel program can address"
                raise SetupError(f"table of {name}", reason, LESSENED_BY.get(name, ""))
        descriptors: dict[str, int] = {}
        try:
            for name, size in {**sizes.regions(), DESCRIPTION: DESCRIPTION_BYTES}.items():
                descriptors[name] = syscall.create_array(name, size)
            result = cls(sizes, descriptors)
            text = json.dumps(description(sizes)).encode()
            _memory(descriptors[DESCRIPTION], DESCRIPTION_BYTES)[: len(text)] = np.frombuffer(text, np.uint8)
        except BaseException:
            _close(descriptors)
            raise
        result.tables.initialise()
        return result

    def pin(self, directory: Path) -> None:
        for name, descriptor in self.descriptors.items():
            syscall.pin(directory / name, descriptor)

    def load(
        self,
        name: str,
        attach: Attach,
        clock: Mapping[str, int] | None = None,
        more: Mapping[str, int] | None = None,
        rings: Mapping[str, int] | None = None,
    ) -> Loaded:
        """Load the compiled program ``name`` for these tables. Raise BpfError if the kernel refuses it.

        ``clock`` replaces the kernel clock's numbers (context.CLOCK) in tests. ``more`` (by table name) and ``rings``
        (by symbol) are descriptors of further maps that this program uses.
        """
        maps = {TABLE_SYMBOL + name: descriptor for name, descriptor in {**self.descriptors, **(more or {})}.items()}
        numbers = numbers_of(self.tables.sizes, clock or kernel_clock.numbers())
        code = objects.compiled(name).program(objects.SECTION, maps, numbers, rings)
        return syscall.load_program(attach, code, f"lbmux_{name.rpartition(':')[2]}")

    def close(self) -> None:
        """Close the descriptors. The memory stays mapped while ``tables`` is in use."""
        _close(self.descriptors)
        self.descriptors = {}

    def __enter__(self) -> "KernelTables":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def numbers_of(sizes: Sizes, clock: Mapping[str, int]) -> dict[str, int]:
    """Return the numbers that are patched into a program, by symbol."""
    values = {name: getattr(sizes, name) for name in LIMITS} | dict(clock)
    return {LIMIT_SYMBOL + name: value for name, value in values.items()}


@dataclass(frozen=True)
class Pinned:
    """Tables that an earlier process pinned, possibly of another version or other sizes, with their description."""

    descriptors: dict[str, int]
    description: dict[str, Any]

    @classmethod
    def open(cls, directory: Path) -> "Pinned | None":
        """Open the tables that are pinned in a directory. Return None if they are incomplete."""
        descriptors: dict[str, int] = {}
        try:
            descriptors[DESCRIPTION] = syscall.open_pinned(directory / DESCRIPTION)
            text = _memory(descriptors[DESCRIPTION], DESCRIPTION_BYTES).tobytes().rstrip(b"\0")
            description = json.loads(text)
            for name in description["rows"]:
                descriptors[name] = syscall.open_pinned(directory / name)
        except (syscall.BpfError, ValueError, KeyError, RecursionError):
            _close(descriptors)
            return None
        return cls(descriptors, description)

    @property
    def same_version(self) -> bool:
        return bool(self.description["version"] == VERSION)

    def adopt(self, sizes: Sizes) -> KernelTables | None:
        """Return them as our own tables if version and sizes match and they were initialised, else None."""
        if self.description != description(sizes):
            return None
        adopted = KernelTables(sizes, self.descriptors)
        return adopted if adopted.tables.is_initialised else None

    def rows(self, region: str) -> NDArray[Any]:
        """Return the rows of a region, with the field names of their version."""
        size = syscall.map_value_bytes(self.descriptors[region])
        kind = np.dtype([tuple(field) for field in self.description["rows"][region]])
        return _memory(self.descriptors[region], size)[: size - self.description["padding"]].view(kind)

    def close(self) -> None:
        _close(self.descriptors)


def _memory(descriptor: int, size: int) -> NDArray[np.uint8]:
    return np.frombuffer(syscall.map_value(descriptor, size), np.uint8)


def _close(descriptors: Mapping[str, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)
