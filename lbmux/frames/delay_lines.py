"""Delay lines of a wide-area network: they delay frames between sites, or drop them at random. Compiled.

The lines are an Ethernet switch whose ports are sites: it learns where addresses are, and floods what it does not know.
Each direction between two sites has its own delay, jitter, loss and bounded queue, and keeps the order of its frames.
All randomness comes from one seed. Used by lbmux.lab.wan_node.
"""

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import address_of, compiled
from lbmux.datapath.memory import at_address, header, layout, step, u64
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import Batch
from lbmux.frames.super_frames import memcpy

FRAME_BYTES = 2048
MACS = 1024
"""Number of addresses that are remembered.

Two that share an entry displace each other, and their frames are flooded for a while.
"""
BUCKET_NS, BUCKETS = 10_000, 2000
"""The histogram of errors: 10 µs a bucket; the last has all above 20 ms."""
LOST_BY_CHANCE, QUEUE_FULL, SENT, LATE = range(4)
COUNTERS = ("lost", "overflowed", "forwarded", "late")
LATE_NS = 1_000_000
"""A frame that leaves later than this after its due time counts as late."""
FORWARDED = int(Verdict.FORWARDED)
MULTIPLIER, WEYL = 0xBF58476D1CE4E5B9, 0x9E3779B97F4A7C15
"""Constants of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
macs_row = header(layout(("destination", "u8"), ("source_high", "u4")))


@dataclass(frozen=True)
class Path:
    """One direction between two sites. ``jitter_ms``: the most that a frame's delay deviates, uniformly distributed."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0


class DelayLines:
    """``interfaces``: their indexes by site. ``paths`` by (from, to); sites without a path do not reach each other.

    ``queue``: how many frames a direction holds; more are dropped and counted.
    """

    def __init__(
        self, interfaces: Sequence[int], paths: Mapping[tuple[int, int], Path], queue: int = 8192, seed: int = 1
    ) -> None:
        sites = len(interfaces)
        self.sites, self._queue = sites, queue
        self._interfaces = np.array(interfaces, np.uint32)
        shape = sites * sites
        self._delay, self._jitter = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
        self._loss = np.zeros(shape, np.uint64)
        for (source, target), path in paths.items():
            at = source * sites + target
            self._delay[at], self._jitter[at] = round(path.delay_ms * 1e6), round(path.jitter_ms * 1e6)
            self._loss[at] = min(round(path.loss * 2**63), 2**63)
        self._random = np.arange(shape, dtype=np.uint64) * np.uint64(WEYL) + np.uint64(seed)
        self._head, self._tail = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        used = np.flatnonzero(self._delay >= 0)
        self._line = np.zeros(shape, np.int64)
        self._line[used] = np.arange(len(used))
        self._due = np.zeros(max(1, len(used)) * queue, np.int64)
        self._length = np.zeros(len(self._due), np.uint32)
        self._frames = _small_pages(len(self._due) * FRAME_BYTES)
        self._macs, self._where = np.zeros(MACS, np.uint64), np.zeros(MACS, np.int64)
        self.counters = np.zeros((shape, len(COUNTERS)), np.int64)
        """A row for each direction, `from * sites + to`, and a column for each of COUNTERS."""
        self.errors = np.zeros(BUCKETS, np.int64)
        """The histogram of errors: how long after its due time each frame left."""

    def enter(self, batch: Batch, arrived: NDArray[np.int64], site: int) -> None:
        """Take the frames of a batch that arrived at a site; ``arrived`` in ns since 1970."""
        _enter(
            batch.address, batch.length, arrived, batch.count, site, self.sites, self._queue, self._line, self._delay,
            self._jitter, self._loss, self._random, self._head, self._tail, self._due, self._length,
            address_of(self._frames), self._macs, self._where, self.counters,
        )  # fmt: skip

    def leave(self, batch: Batch, now: int) -> int:
        """Fill a batch with frames that are due; return how many. The caller sends them before the next ``enter``."""
        batch.count = int(_leave(
            batch.address, batch.length, batch.verdict, batch.interface, batch.capacity, now, self.sites, self._queue,
            self._line, self._head, self._tail, self._due, self._length, address_of(self._frames), self._interfaces,
            self.counters, self.errors,
        ))  # fmt: skip
        return batch.count

    def next_due(self) -> int:
        """Return when the next frame is due, in ns since 1970; the largest 64-bit integer if none waits."""
        return int(_next_due(self._queue, self._line, self._head, self._tail, self._due))

    def error_ns(self, share: float) -> int:
        """Return the error that this share of the frames did not exceed, to 10 µs."""
        cumulative = np.cumsum(self.errors)
        return int(np.searchsorted(cumulative, share * cumulative[-1])) * BUCKET_NS


def _small_pages(size: int) -> NDArray[np.uint8]:
    """Return memory that the kernel provides page by page.  The first use of a huge page can take 10 ms."""
    memory = mmap.mmap(-1, size)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.uint8)


@step
def _next_random(state, at):
    """Return the next number of a direction's sequence (SplitMix64), from 0 to 2^63 - 1."""
    state[at] += u64(WEYL)
    mixed = state[at]
    mixed = (mixed ^ (mixed >> u64(30))) * u64(MULTIPLIER)
    mixed = (mixed ^ (mixed >> u64(27))) * u64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> u64(31))) >> u64(1)


@step
def _place(mac):
    return np.int64((mac * u64(WEYL)) >> u64(54))  # log2(MACS) bits remain


@compiled
def _enter(
    address, length, arrived, count, site, sites, queue, line, delay, jitter, loss, random, head, tail, due, lengths,
    frames, macs, where, counters,
):  # fmt: skip
    for index in range(count):
        start = at_address(address[index])
        if length[index] < 14 or length[index] > FRAME_BYTES:
            continue
        ends = macs_row(start, 0)
        destination = ends.destination & u64(0xFFFFFFFFFFFF)
        source = (ends.destination >> u64(48)) | (u64(ends.source_high) << u64(16))
        macs[_place(source)], where[_place(source)] = source, site
        known = macs[_place(destination)] == destination and (destination & u64(1)) == 0
        for target in range(sites):
            at = site * sites + target
            if delay[at] < 0 or (known and where[_place(destination)] != target):
                continue
            if _next_random(random, at) < loss[at]:
                counters[at, LOST_BY_CHANCE] += 1
                continue
            if tail[at] - head[at] >= queue:
                counters[at, QUEUE_FULL] += 1
                continue
            wait = delay[at]
            if jitter[at] > 0:
                wait = max(0, wait - jitter[at] + np.int64(_next_random(random, at) % u64(2 * jitter[at] + 1)))
            slot = line[at] * queue + tail[at] % queue
            due[slot], lengths[slot] = arrived[index] + wait, length[index]
            if tail[at] > head[at]:  # no frame overtakes another
                due[slot] = max(due[slot], due[line[at] * queue + (tail[at] - 1) % queue])
            memcpy(at_address(frames + u64(slot * FRAME_BYTES)), start, u64(length[index]))
            tail[at] += 1


@compiled
def _leave(
    address, length, verdict, interface, capacity, now, sites, queue, line, head, tail, due, lengths, frames,
    interfaces, counters, errors,
):  # fmt: skip
    count = 0
    for at in range(sites * sites):
        while count < capacity and head[at] < tail[at]:
            slot = line[at] * queue + head[at] % queue
            error = now - due[slot]
            if error < 0:
                break
            address[count], length[count] = frames + u64(slot * FRAME_BYTES), lengths[slot]
            verdict[count], interface[count] = FORWARDED, interfaces[at % sites]
            errors[min(error // BUCKET_NS, BUCKETS - 1)] += 1
            counters[at, SENT] += 1
            if error > LATE_NS:
                counters[at, LATE] += 1
            head[at] += 1
            count += 1
    return count


@compiled
def _next_due(queue, line, head, tail, due):
    first = np.int64(0x7FFFFFFFFFFFFFFF)
    for at in range(len(head)):
        if head[at] < tail[at]:
            first = min(first, due[line[at] * queue + head[at] % queue])
    return first
