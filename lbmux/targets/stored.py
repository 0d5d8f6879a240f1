"""Tables in a file, so that the next process takes over the flows, however this one ends.

The agent's user-space driver uses it; the kernel drivers have pinned maps instead. The file is mapped, so every write
reaches it at once. It belongs on a tmpfs (/run): neither connections nor the clock outlive a reboot.
"""

import fcntl
import json
import mmap
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.datapath.tables import Sizes
from lbmux.errors import SetupError
from lbmux.targets.regions import Tables, description

HEADER_BYTES = 1 << 15
"""The header before the regions describes them in JSON."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class StoredRows:
    """Tables of another version or other sizes, with their description."""

    description: dict[str, Any]
    memory: dict[str, NDArray[np.uint8]]

    def rows(self, region: str) -> NDArray[Any]:
        """Return the rows of a region, with the field names of their version."""
        kind = np.dtype([tuple(field) for field in self.description["rows"][region]])
        memory = self.memory[region]
        return memory[: len(memory) - self.description["padding"]].view(kind)


class StoredTables:
    """Tables in a file. ``adopted``: the file's tables were kept; ``previous``: a copy of tables that did not fit."""

    def __init__(self, path: Path, sizes: Sizes) -> None:
        """Raise SetupError if another agent uses the file or it cannot be opened, OSError if there is no space."""
        self._path, self._file = path, _open(path)
        try:
            wanted = description(sizes) | {"regions": sizes.regions(), "boot": BOOT_ID.read_text().strip()}
            stored = self._read_description(wanted["boot"])
            tables = Tables(sizes, self._map(sizes.regions())) if stored == wanted else None
            self.adopted = tables is not None and tables.is_initialised
            self.previous = self._copy(stored) if stored and stored != wanted else None
            self.tables = tables if tables is not None and tables.is_initialised else self._fresh(sizes, wanted)
        except OSError:
            os.close(self._file)
            raise

    def _fresh(self, sizes: Sizes, description: dict[str, Any]) -> Tables:
        """Make tables in zeroed pages. The description comes last, so an interrupted start leaves nothing to adopt."""
        os.ftruncate(self._file, 0)
        os.posix_fallocate(self._file, 0, HEADER_BYTES + sum(map(_pages, sizes.regions().values())))
        tables = Tables(sizes, self._map(sizes.regions()))
        tables.initialise()
        os.pwrite(self._file, json.dumps(description).encode().ljust(HEADER_BYTES, b"\0"), 0)
        return tables

    def _read_description(self, boot: str) -> dict[str, Any] | None:
        """Return None for a file that is new, damaged, or from another boot, which had another clock."""
        try:
            description = json.loads(os.pread(self._file, HEADER_BYTES, 0).rstrip(b"\0"))
            whole = HEADER_BYTES + sum(map(_pages, description["regions"].values()))
            is_whole = description["boot"] == boot and os.fstat(self._file).st_size == whole
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return dict(description) if is_whole else None

    def _map(self, regions: dict[str, int]) -> dict[str, NDArray[np.uint8]]:
        memory = mmap.mmap(self._file, HEADER_BYTES + sum(map(_pages, regions.values())))
        views, at = {}, HEADER_BYTES
        for name, size in regions.items():
            views[name] = np.frombuffer(memory, np.uint8, size, at)
            at += _pages(size)
        return views

    def _copy(self, description: dict[str, Any]) -> StoredRows:
        return StoredRows(
            description, {name: memory.copy() for name, memory in self._map(description["regions"]).items()}
        )

    def close(self, remove: bool = False) -> None:
        """Close the file. The memory stays mapped while ``tables`` is in use. ``remove`` deletes the file first."""
        if remove:
            self._path.unlink(missing_ok=True)
        fcntl.flock(self._file, fcntl.LOCK_UN)  # the mapping duplicates the descriptor, which would hold the lock
        os.close(self._file)


def _open(path: Path) -> int:
    """Open and lock the file. Raise SetupError if it belongs to another user or another agent has locked it."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SetupError(f"flow store {path}", error.strerror or str(error), "remove it") from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise SetupError(f"flow store {path}", "belongs to another user or is accessible to others", "remove it")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file)
        raise SetupError(f"flow store {path}", "another agent uses it", "stop that agent first") from error
    except BaseException:
        os.close(file)
        raise
    return file


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
