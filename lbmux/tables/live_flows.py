"""Counts, selects and sorts the live flows of a flow table with a million entries, off the packet path.

This runs in a thread.  It copies and then examines the table in chunks, so entries do not change while they are
examined.  Compiled code and NumPy release the interpreter's lock, so packets do not wait.  The data path's own function
decides whether an entry is alive.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import from_pair, port_from_wire
from lbmux.codegen.compiled import address_of, compiled_nogil
from lbmux.config.models import BackendKey
from lbmux.datapath.flow_lookup import is_alive, state_of, target_of
from lbmux.datapath.memory import at_address, int64, step, u16, u64
from lbmux.datapath.tables import (
    CLOSING,
    FLOW,
    NONE,
    TICK_SHIFT,
    TRACK_CHANGED,
    TRUSTED,
    UNTRUSTED,
    backend_row,
    endpoint_row,
    entry_row,
    service_row,
)
from lbmux.errors import LbmuxError
from lbmux.tables import slot_pairs
from lbmux.tables.snapshot import Snapshot
from lbmux.targets.regions import Tables, now_ticks

CHUNK_PLACES = 1 << 15
"""A megabyte: it stays in the cache between the copy and the examination."""
DESCRIBED_FLOWS = 1 << 10
TICK_S = (1 << TICK_SHIFT) / 1e9
STATES = {UNTRUSTED: "untrusted", TRUSTED: "trusted", CLOSING: "closing"}


@dataclass(frozen=True)
class Flows:
    """Entries that were alive at ``now``; all arrays are of one length."""

    snapshot: Snapshot
    entries: NDArray[Any]
    """Rows of the flow table."""
    now: int

    def __len__(self) -> int:
        return len(self.entries)

    def idle_ticks(self) -> NDArray[np.int32]:
        """Return idle times in ticks; negative if a packet came after the clock was read."""
        return (np.uint32(self.now) - self.entries["seen"]).view(np.int32)

    def ports(self) -> NDArray[np.uint16]:
        """Return the VIP's ports.  An agent's entries have the DIP's port; a service with one port has its VIP's."""
        ports = (self.entries["ports"] >> 16).astype(np.uint16)
        if self.snapshot.is_agent:
            own = self.snapshot.tables.endpoints["vip_port"][self.entries["target"]]
            ports = np.where(own, own, ports)
        return ports.byteswap()

    def pick(self, which: "NDArray[Any] | slice") -> "Flows":
        return Flows(self.snapshot, self.entries[which], self.now)


Test = Callable[[Flows], NDArray[np.bool_]]
"""Returns for each flow whether it matches."""


class SortError(LbmuxError):
    """Flows cannot be sorted by ``field``."""

    field: str

    def __str__(self) -> str:
        return f"cannot sort flows by {self.field!r}; use {', '.join(KEYS)} (prefix - for descending order)"


def live(snapshot: Snapshot) -> Iterator[Flows]:
    """Yield all live flows, one chunk at a time."""
    now = now_ticks()
    for entries, alive in _chunks(snapshot, now):
        yield Flows(snapshot, entries[alive], now)


def _chunks(snapshot: Snapshot, now: int) -> Iterator[tuple[NDArray[Any], NDArray[np.uint32]]]:
    """Yield (a copied chunk of the entries, the indexes of those that are alive)."""
    tables = snapshot.tables
    find_alive, owners, targets = _alive_at_mux, tables.services[tables.active], tables.backends
    if snapshot.is_agent:
        find_alive, owners, targets = _alive_at_agent, tables.endpoints, tables.endpoints
    for copy in copies(tables):
        alive = np.empty(len(copy), np.uint32)
        count = find_alive(
            address_of(copy), len(copy), address_of(owners), len(owners), address_of(targets), len(targets), now, alive
        )
        yield copy, alive[:count]


def copies(tables: Tables) -> Iterator[NDArray[Any]]:
    """Yield copied chunks of the whole table, dead entries included."""
    places = tables.flows.reshape(-1)
    for first in range(0, len(places), CHUNK_PLACES):
        yield places[first : first + CHUNK_PLACES].copy()


def warm_up(snapshot: Snapshot) -> None:
    """Compile the code before packets arrive, which would otherwise wait for it."""
    for entries, alive in _chunks(snapshot, now_ticks()):
        _tally(entries, alive, np.zeros(4 * len(snapshot.ranks), np.int64))
        break


def count(snapshot: Snapshot, test: Test | None = None) -> int:
    if test is None:
        return sum(len(alive) for _, alive in _chunks(snapshot, now_ticks()))
    return sum(int(test(chunk).sum()) for chunk in live(snapshot))


def by_backend(snapshot: Snapshot) -> NDArray[np.int64]:
    """Count live flows. Return an array [row of the backend or endpoint, state of the flow]."""
    size = len(snapshot.ranks)
    counts = np.zeros(size * 4, np.int64)
    for entries, alive in _chunks(snapshot, now_ticks()):
        _tally(entries, alive, counts)
    return counts.reshape(size, 4)


def without_flows(snapshot: Snapshot, keys: Collection[BackendKey]) -> set[BackendKey]:
    """Return which of these backends, all of which are in the tables, have no live flow.

    The flows of a changing slot's base may have no entry until the slot is settled.
    """
    flows, bases = by_backend(snapshot), set() if snapshot.is_agent else _bases(snapshot.tables)
    return {key for key in keys if not np.any(flows[snapshot.rows[key]]) and snapshot.rows[key] not in bases}


def _bases(tables: Tables) -> set[int]:
    """Return the rows of backends that may have flows without an entry, in services that track changes only.

    They are the bases of changing slots.  Where no backend is left, they are all in the service's former table.
    """
    bases = set[int]()
    for service in tables.services[tables.active]:
        if service["tracking"] != TRACK_CHANGED:
            continue
        former = tables.slots[:0]
        if service["former"] != NONE:
            former = tables.slots[int(service["former"]) :][: int(service["former_size"])]
        if service["size"]:
            bases |= slot_pairs.bases(tables.slots[int(service["slots"]) :][: int(service["size"])], former)
        else:
            bases |= slot_pairs.bases_of_table(former)
    return bases


@compiled_nogil
def _tally(entries, alive, counts):  # type: ignore[no-untyped-def]
    """Count the flows that were found, by target and state."""
    for index in alive:
        counts[int64(entries[index].target) * 4 + int64(entries[index].state)] += 1


def select(snapshot: Snapshot, test: Test | None = None, sort: str = "", limit: int | None = None) -> Flows:
    """Return at most ``limit`` matching flows, sorted by ``sort``: a key, or ``-`` and a key for descending order."""
    if sort and sort.removeprefix("-") not in KEYS:
        raise SortError(sort)
    chunks: list[Flows] = []
    for chunk in live(snapshot):
        chunks.append(chunk if test is None else chunk.pick(test(chunk)))
        matching = sum(map(len, chunks))
        if limit is not None and matching >= limit:
            if not sort:
                break
            if matching > limit + 4 * CHUNK_PLACES:  # a short list from a million flows needs little memory
                chunks = [_sorted(_joined(snapshot, chunks), sort, limit)]
    return _sorted(_joined(snapshot, chunks), sort, limit)


def describe(flows: Flows) -> Iterator[dict[str, Any]]:
    """Describe each flow, in small groups: making lists holds the interpreter's lock."""
    for first in range(0, len(flows), DESCRIBED_FLOWS):
        yield from _described(flows.pick(slice(first, first + DESCRIBED_FLOWS)))


def _described(flows: Flows) -> Iterator[dict[str, Any]]:
    owners, idle_s = flows.snapshot.owners, flows.idle_ticks() * TICK_S
    # Convert to lists: reading fields of NumPy records would cost more than everything else here.
    columns = [flows.entries[name].tolist() for name in ("high", "low", "ports", "target", "state")]
    for high, low, ports, target, state, port, idle in zip(
        *columns, flows.ports().tolist(), idle_s.tolist(), strict=True
    ):
        owner = owners.get(target)
        service, backend = owner if owner is not None else (None, None)
        yield {
            "protocol": service.protocol if service else None,
            "source": str(from_pair(high, low)),
            "source_port": port_from_wire(ports & 0xFFFF),
            "destination": str(service.vip) if service else None,
            "destination_port": port,
            "service": service.name if service else None,
            "backend": backend.name if backend else None,
            "state": STATES[state],
            "idle_s": round(max(0.0, idle), 3),
        }


def _joined(snapshot: Snapshot, parts: list[Flows]) -> Flows:
    if not parts:
        return Flows(snapshot, np.empty(0, FLOW), 0)
    return Flows(snapshot, np.concatenate([part.entries for part in parts]), parts[0].now)


def _sorted(flows: Flows, sort: str, limit: int | None) -> Flows:
    if not sort:
        return flows.pick(np.arange(len(flows))[:limit])
    order = np.lexsort(KEYS[sort.removeprefix("-")](flows)[::-1])
    return flows.pick((order[::-1] if sort.startswith("-") else order)[:limit])


def _swapped(values: NDArray[Any]) -> Any:
    return values.byteswap()


KEYS: dict[str, Callable[[Flows], list[NDArray[Any]]]] = {
    "idle": lambda flows: [flows.idle_ticks()],
    "source": lambda flows: [_swapped(flows.entries["high"]), _swapped(flows.entries["low"])],
    "port": lambda flows: [_swapped((flows.entries["ports"] & 0xFFFF).astype(np.uint16))],
    "backend": lambda flows: [flows.snapshot.ranks[flows.entries["target"]]],
    "state": lambda flows: [flows.entries["state"]],
}
"""Sort keys, the most significant part first; backends sort in the configuration's order."""


@step
def _is_in(word, owners, targets):  # type: ignore[no-untyped-def]
    """Return whether the entry is in use and its indexes are within their tables."""
    return state_of(word) != 0 and int64(u16(word)) < owners and target_of(word) < targets


@compiled_nogil
def _alive_at_mux(flows, count, owners, owner_count, targets, target_count, now, alive):  # type: ignore[no-untyped-def]
    """Write the indexes of live flows to ``alive`` and return their number."""
    at = 0
    for place in range(count):
        entry = entry_row(at_address(flows), place)
        word = entry.word
        if _is_in(word, owner_count, target_count):
            service = service_row(at_address(owners), int64(u16(word)))
            if is_alive(word, entry, backend_row(at_address(targets), target_of(word)), service, u64(now)):
                alive[at] = place
                at += 1
    return at


@compiled_nogil
def _alive_at_agent(flows, count, owners, owner_count, targets, target_count, now, alive):  # type: ignore[no-untyped-def]
    """Do the same for an agent, whose endpoints have the idle timeouts."""
    at = 0
    for place in range(count):
        entry = entry_row(at_address(flows), place)
        word = entry.word
        if _is_in(word, owner_count, target_count):
            endpoint = endpoint_row(at_address(targets), target_of(word))
            if is_alive(word, entry, endpoint, endpoint, u64(now)):
                alive[at] = place
                at += 1
    return at
