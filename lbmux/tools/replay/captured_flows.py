"""The flows of a capture: compiled code numbers them as their packets are read, and keeps a record of each.

A flow is the packets with the same protocol, addresses and ports. A SYN with another sequence number, or after a FIN or
RST, begins another flow, and so does a datagram after the idle timeout of its UDP service. Used by flow_outcomes.py,
replay_pool.py and captured_services.py.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import address_of, compiled
from lbmux.datapath.access import unchecked
from lbmux.datapath.context import context_at
from lbmux.datapath.frame import frame, frame_end
from lbmux.datapath.hashing import murmur3_wide
from lbmux.datapath.headers import tcp
from lbmux.datapath.memory import at_address, int64, layout, rows, step, u8, u32, u64
from lbmux.datapath.mux import with_service
from lbmux.datapath.parse import PARSED, parse
from lbmux.datapath.tables import Sizes
from lbmux.frames.captured_frames import CapturedFrames
from lbmux.targets.native import Worker, context_row, enter
from lbmux.targets.regions import Tables
from lbmux.wire.numbers import ACK, FIN, RST, SYN, TCP_PROTOCOL

CAPTURED_FLOW = layout(
    ("source_high", "u8"),
    ("source_low", "u8"),
    ("destination_high", "u8"),
    ("destination_low", "u8"),
    ("first_ns", "i8"),
    ("last_ns", "i8"),
    ("packets", "u8"),
    ("bytes", "u8"),
    ("ports", "u4"),
    ("sequence", "u4"),
    ("service", "i4"),
    ("backend", "i4"),
    ("changes", "u4"),
    ("protocol", "u1"),
    ("seen", "u1"),
)
"""Addresses and ports as in lbmux.addresses; times in nanoseconds since 1970; ``bytes`` of whole frames. ``sequence``:
its SYN's number, as loaded. ``service`` and ``backend``: numbers, or -1. ``changes``: how many changes came into force
before its latest packet. ``seen``: the bits below."""

OPENED, CLOSED, REPLY, BROKEN, LOST = 1, 2, 4, 8, 16
"""Its SYN was captured; a FIN or RST; the opposite direction came first; see flow_outcomes.py for the rest."""

SEED = 0x6C62
"""Seed of the hash that finds flows and stands for a router's. Maglev slots have other seeds."""
FIRST_CAPACITY = 1 << 12
flow_row = rows(CAPTURED_FLOW)


def plain_worker() -> Worker:
    """Return a worker with tables of one row, for compiled code that parses frames and looks nothing up."""
    sizes = Sizes(addresses=1, services=1, slots=1, backends=1, buckets=1, rules=1)
    return Worker(Tables.allocate(sizes))


class CapturedFlows:
    """Flows by number, in order of their first packets."""

    def __init__(self, worker: Worker, every: bool = False) -> None:
        """``worker``: its tables match packets to services. ``every``: number flows to other destinations as well."""
        self._worker, self._every, self._flows = worker, every, np.zeros(FIRST_CAPACITY, CAPTURED_FLOW)
        self._places = np.zeros(2 * FIRST_CAPACITY, np.uint32)
        self._count = 0
        self.changes = 0
        """How many changes are in force."""
        self.service_numbers = np.full(worker.tables.sizes.services + 1, -1, np.int32)
        """The number of each row of the service table; the last entry is for no service."""
        self.idle_ns = np.full(worker.tables.sizes.services, np.iinfo(np.int64).max, np.int64)
        """The idle timeout of each row of the service table."""
        self.numbers = np.zeros(0, np.int64)
        """The flow of each frame of the latest batch, or -1."""
        self.hashes = np.zeros(0, np.uint32)
        """The hash of the five fields of each frame of the latest batch, or 0."""

    @property
    def records(self) -> NDArray[Any]:
        """A row of CAPTURED_FLOW for each flow."""
        return self._flows[: self._count]

    def add(self, frames: CapturedFrames) -> None:
        """Number the flows of a batch, before the data path changes its frames."""
        self._reserve(frames.count)
        if len(self.numbers) < frames.count or not len(self.numbers):
            self.numbers, self.hashes = np.zeros(frames.capacity, np.int64), np.zeros(frames.capacity, np.uint32)
        self._count = _number(
            self._worker.address, address_of(self._places), len(self._places) - 1, address_of(self._flows), self._count,
            self.service_numbers, self.idle_ns, self._every, self.changes, frames.address, frames.length,
            frames.time_ns, frames.count, self.numbers, self.hashes,
        )  # fmt: skip

    def _reserve(self, more: int) -> None:
        """Make room for ``more`` flows. At most half of the places are in use."""
        while self._count + more > len(self._flows):
            self._flows = np.concatenate([self._flows, np.zeros(len(self._flows), CAPTURED_FLOW)])
        if 2 * len(self._flows) > len(self._places):
            self._places = np.zeros(2 * len(self._flows), np.uint32)
            _place_all(address_of(self._places), len(self._places) - 1, address_of(self._flows), self._count)


place_row = rows(layout(("number", "u4")))


@step
def _hash(source_high, source_low, destination_high, destination_low, ports, protocol):  # type: ignore[no-untyped-def]
    return murmur3_wide(u32(SEED), source_high, source_low, destination_high, destination_low, ports, protocol)


@step
def _place(places, mask, flows, hashed, high, low, to_high, to_low, ports, protocol):  # type: ignore[no-untyped-def]
    """Return the place of a flow's number, or the free place where it belongs."""
    at = int64(hashed) & mask
    while True:
        number = int64(place_row(places, at).number)
        if number == 0:
            return at
        flow = flow_row(flows, number - 1)
        if (
            flow.ports == ports
            and flow.source_low == low
            and flow.destination_low == to_low
            and flow.source_high == high
            and flow.destination_high == to_high
            and int64(flow.protocol) == int64(protocol)
        ):
            return at
        at = (at + 1) & mask


@step
def _begins_another(flow, packet, sequence, time_ns, idle_ns):  # type: ignore[no-untyped-def]
    """Return whether the packet begins a new flow with the five fields of ``flow``."""
    if packet.protocol != TCP_PROTOCOL:
        return time_ns - flow.last_ns > idle_ns
    if (packet.flags & (SYN | ACK | RST)) != SYN:
        return False
    return (flow.seen & (OPENED | CLOSED)) != OPENED or flow.sequence != sequence


@step
def _enter(flow, packet, service, sequence, changes, time_ns):  # type: ignore[no-untyped-def]
    """Write the record of a new flow."""
    flow.source_high, flow.source_low = packet.source_high, packet.source_low
    flow.destination_high, flow.destination_low = packet.destination_high, packet.destination_low
    flow.ports, flow.protocol, flow.service, flow.backend = packet.ports, u8(packet.protocol), service, -1
    flow.first_ns, flow.changes, flow.seen, flow.sequence = time_ns, changes, u8(0), u32(0)
    if packet.protocol == TCP_PROTOCOL and (packet.flags & (SYN | ACK)) == SYN:
        flow.seen, flow.sequence = u8(OPENED), sequence


@step
def _count(flow, packet, length, time_ns):  # type: ignore[no-untyped-def]
    flow.last_ns = time_ns
    flow.packets += u64(1)
    flow.bytes += u64(length)
    if packet.protocol == TCP_PROTOCOL and (packet.flags & (FIN | RST)) != 0:
        flow.seen = u8(flow.seen | u8(CLOSED))


@step
def _place_of(places, mask, flows, packet):  # type: ignore[no-untyped-def]
    """Return (the place of a packet's flow, the packet's hash)."""
    high, low, to_high, to_low = (
        packet.source_high, packet.source_low, packet.destination_high, packet.destination_low,
    )  # fmt: skip
    hashed = _hash(high, low, to_high, to_low, packet.ports, packet.protocol)
    return _place(places, mask, flows, hashed, high, low, to_high, to_low, packet.ports, packet.protocol), hashed


@step
def _has_opposite(places, mask, flows, packet):  # type: ignore[no-untyped-def]
    """Return whether the flow of the replies to this packet is known."""
    ports = u32(u32(packet.ports >> u32(16)) | u32(packet.ports << u32(16)))
    high, low, to_high, to_low = (
        packet.destination_high, packet.destination_low, packet.source_high, packet.source_low,
    )  # fmt: skip
    hashed = _hash(high, low, to_high, to_low, ports, packet.protocol)
    at = _place(places, mask, flows, hashed, high, low, to_high, to_low, ports, packet.protocol)
    return place_row(places, at).number != 0


@step
def _sequence(start, packet):  # type: ignore[no-untyped-def]
    """Return a segment's sequence number as loaded; 0 for a datagram."""
    return tcp(start, packet.transport).sequence if packet.protocol == TCP_PROTOCOL else u32(0)


@step
def _row(context, setting, packet, index, service, arguments):  # type: ignore[no-untyped-def]
    return int64(PARSED), index


@compiled
def _place_all(places, mask, flows, count):  # type: ignore[no-untyped-def]
    """Enter all flows into an empty table. A later flow with the same five fields replaces the earlier one."""
    places, flows = at_address(places), at_address(flows)
    for number in range(count):
        flow = flow_row(flows, number)
        high, low, to_high, to_low = flow.source_high, flow.source_low, flow.destination_high, flow.destination_low
        hashed = _hash(high, low, to_high, to_low, flow.ports, flow.protocol)
        at = _place(places, mask, flows, hashed, high, low, to_high, to_low, flow.ports, flow.protocol)
        place_row(places, at).number = u32(number + 1)


@compiled
def _number(  # type: ignore[no-untyped-def]
    context_address, places, mask, flows, used, service_numbers, idle_ns, every, changes, address, length, time_ns,
    count, numbers, hashes,
):  # fmt: skip
    """Write each frame's flow to ``numbers`` and its hash to ``hashes``. Return the number of flows."""
    context, record = context_at(context_address), context_row(at_address(context_address), 0)
    places, flows = at_address(places), at_address(flows)
    for index in range(count):
        numbers[index], hashes[index], time = -1, 0, time_ns[index]
        enter(record, address[index], length[index], 0, 0)
        start = frame(context)
        packet = parse(context, start, frame_end(context))
        if packet.verdict != PARSED:
            continue
        at, hashes[index] = _place_of(places, mask, flows, packet)
        number, row = int64(place_row(places, at).number) - 1, with_service(context, packet, unchecked, _row, ())[1]
        wanted, sequence = row >= 0 or every, _sequence(start, packet)
        limit = idle_ns[max(row, 0)]
        if wanted and (number < 0 or _begins_another(flow_row(flows, number), packet, sequence, time, limit)):
            number, used = used, used + 1
            _enter(flow_row(flows, number), packet, service_numbers[row], sequence, changes, time)
            if every and _has_opposite(places, mask, flows, packet):
                flow_row(flows, number).seen = u8(flow_row(flows, number).seen | u8(REPLY))
            place_row(places, at).number = u32(number + 1)
        if number >= 0:
            _count(flow_row(flows, number), packet, length[index], time)
            numbers[index] = number
    return used
