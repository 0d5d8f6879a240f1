"""Tables of a set of servers that changes, for `lbmux simulate jet`: rendezvous hashing and Maglev.

A table maps slots to numbers of servers.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import compiled_nogil
from lbmux.tables import maglev
from lbmux.tools.simulate.hash_tables import highest, score


class ServerTable(Protocol):
    """``slots``: shape (size,), the server of each slot."""

    slots: NDArray[np.int32]

    def join(self, server: int) -> None: ...

    def leave(self, server: int) -> None: ...


class RendezvousTable:
    """A server that joins takes slots from others, one that leaves gives away its own: no other slot changes."""

    def __init__(self, seeds: NDArray[np.uint64], servers: list[int], size: int) -> None:
        """``seeds``: of all servers that there will be."""
        self._seeds, self._members = seeds, set(servers)
        self.slots = np.zeros(size, np.int32)
        self._fill(np.arange(size))

    def join(self, server: int) -> None:
        self._members.add(server)
        _join(self._seeds, server, self.slots)

    def leave(self, server: int) -> None:
        self._members.discard(server)
        self._fill(np.flatnonzero(self.slots == server))

    def _fill(self, which: NDArray[np.int64]) -> None:
        members, winners = np.array(sorted(self._members), np.int32), np.zeros(len(self.slots), np.uint32)
        highest(self._seeds[members], which, winners)
        self.slots[which] = members[winners[which]]


class MaglevTable:
    """The table that lbmux builds, a new one for each change."""

    def __init__(self, servers: list[int], size: int) -> None:
        self._members, self._size = set(servers), size
        self.slots = self._built()

    def join(self, server: int) -> None:
        self._members.add(server)
        self.slots = self._built()

    def leave(self, server: int) -> None:
        self._members.discard(server)
        self.slots = self._built()

    def _built(self) -> NDArray[np.int32]:
        members = np.array(sorted(self._members), np.int32)
        table: NDArray[np.int32] = members[maglev.build([f"s{one}" for one in members], [1] * len(members), self._size)]
        return table


@compiled_nogil
def _join(seeds: NDArray[np.uint64], server: int, table: NDArray[Any]) -> None:
    for slot in range(len(table)):
        if score(seeds[server], slot) > score(seeds[table[slot]], slot):
            table[slot] = server
