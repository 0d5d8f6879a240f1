"""The data path for one packet at a time: the same steps on the same tables, called from Python.

``datapath.mux.forward`` is split into two parts here, because the slow path knows the flow from an ICMP quote or from
the first fragment, not from the packet's own header.
"""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address, from_pair, port_to_wire, to_pair
from lbmux.codegen.compiled import compiled
from lbmux.datapath.access import allowed
from lbmux.datapath.context import backend_limit, backends, context_at, service_limit, settings, slots, worker_limit
from lbmux.datapath.encapsulate import encapsulate
from lbmux.datapath.flows import flow_hash, lookup, remember
from lbmux.datapath.hashing import scale
from lbmux.datapath.memory import at_address, int64, step, u16, u32, u64
from lbmux.datapath.mux import active_service, base_of, choose, in_worker_table, service_of, slot_hash, slot_pair
from lbmux.datapath.parse import PARSED
from lbmux.datapath.parse import Packet as Parsed
from lbmux.datapath.tables import (
    BACKEND,
    GONE,
    GRE,
    IPIP,
    KIND_MASK,
    NO_BASE,
    OUTER_IPV6,
    TICK_SHIFT,
    TRACK_NONE,
    backend_row,
    flow_row,
    settings_row,
    slot_row,
)
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.candidates import host_keys
from lbmux.slowpath.fragment_out import fragment_packet
from lbmux.slowpath.slow_path_flow import OUTER_TTL, Candidates, Flow
from lbmux.targets.native import HEADROOM_BYTES, Worker, context_row
from lbmux.wire.header_layouts import ETHERNET_BYTES
from lbmux.wire.numbers import IPV4_WITHOUT_OPTIONS
from lbmux.wire.packet import Packet, ethernet_header, read_ip, version_of, with_hops

BUFFER_BYTES = 1 << 17
FRAME_AT = 128
"""A frame's offset in the buffer, which leaves more headroom than the frame may need."""
ANY_MTU = 65535
FORWARDED = int(Verdict.FORWARDED)
SEARCH_TICKS = int(1e9) >> TICK_SHIFT
"""One second: longer than the search for a flow takes."""


class TableForwarder:
    """A ``Forwarder`` on a worker's tables."""

    def __init__(self, worker: Worker, now: Callable[[], int]) -> None:
        """``now``: the data path's clock, in ticks."""
        self._worker, self._tables, self._now = worker, worker.tables, now
        self._buffer = np.zeros(BUFFER_BYTES, np.uint8)
        self._identifications = count(1)
        self.mtus: Callable[[Address, int], int] = lambda host, mtu_bytes: mtu_bytes
        """Returns the path MTU to a host, given its first link's MTU."""
        self.unsent = 0
        """Packets that could not be sent: no such backend, or its MAC address is unknown."""

    def warm_up(self) -> None:
        """Compile the functions, or load them from the cache."""
        flow = Flow(6, from_pair(0, 0xFFFF0000), 0, from_pair(0, 0xFFFF0000), 0)
        self._choose(flow, enter=False)
        self.candidates(flow, 1)
        self.entry(flow)
        self.assign(flow, -1)
        self.forget(flow)
        self._encapsulate(bytes([IPV4_WITHOUT_OPTIONS]) + bytes(39), -1, 0)

    def owner(self, flow: Flow) -> int | None:
        return self._choose(flow, enter=False)

    def owners(self, flow: Flow) -> list[int]:
        if self.owner(flow) is None:
            return []
        entry = self.entry(flow)
        return [entry] if entry is not None else self.likely(flow)

    def enter(self, flow: Flow) -> int | None:
        """Like ``owner``, and the flow keeps the backend from now on."""
        return self._choose(flow, enter=True)

    def entry(self, flow: Flow) -> int | None:
        target = int(_entry(self._worker.address, *_key_of(flow), np.uint64(self._now())))
        return target if target >= 0 else None

    def likely(self, flow: Flow) -> list[int]:
        return self._likely(flow)[1]

    def _likely(self, flow: Flow) -> tuple[int, list[int]]:
        """Return the flow's service, or -1, and the backends of its slot: the current one and the base."""
        service, *slots = map(int, _slots(self._worker.address, *_key_of(flow)))
        states = self._tables.backends["state"]
        return service, list(dict.fromkeys(row for row in slots if row >= 0 and states[row] != GONE))

    def candidates(self, flow: Flow, most: int) -> Candidates:
        """Return the candidates. For a second after a change the rest includes the likely ones, which may be new."""
        service, likely = self._likely(flow)
        rows, likely = self._tables.backends, likely[:most]
        chosen = (rows["service"] == service) & (rows["state"] != GONE)
        if not self._just_changed():
            chosen[likely] = False
        rest = np.flatnonzero(chosen)
        keys = host_keys(flow, rows["remote_high"][rest], rows["remote_low"][rest])
        order = np.argsort(keys, kind="stable")[: most - len(likely)]
        return Candidates(likely, rest[order].tolist(), keys[order].tolist())

    def _just_changed(self) -> bool:
        changed = int(self._tables.settings[0]["tables_changed"])
        return (self._now() - changed) & 0xFFFFFFFF < SEARCH_TICKS

    def rejects(self, flow: Flow) -> bool:
        """Return whether the flow's service rejects packets while it has no backend."""
        service = self._likely(flow)[0]
        return service >= 0 and bool(self._tables.services[self._tables.active, service]["rejects"])

    def at_host(self, backends: Sequence[int], host: Address) -> list[int]:
        (high, low), rows = to_pair(host), self._tables.backends[list(backends)]
        found = (rows["remote_high"] == np.uint64(high)) & (rows["remote_low"] == np.uint64(low))
        return [backend for backend, is_there in zip(backends, found.tolist(), strict=True) if is_there]

    def host(self, backend: int) -> Address:
        row = self._tables.backends[backend]
        return from_pair(int(row["remote_high"]), int(row["remote_low"]))

    def assign(self, flow: Flow, backend: int) -> None:
        _assign(self._worker.address, *_key_of(flow), np.uint64(self._now()), backend)

    def forget(self, flow: Flow) -> None:
        _forget(self._worker.address, *_key_of(flow))

    def inner_mtu(self, backend: int) -> int:
        """Return the size in bytes of the largest packet that fits the path to a backend's host."""
        return self.path_mtu(backend) - int(self._tables.backends[backend]["overhead_bytes"])

    def path_mtu(self, backend: int) -> int:
        return self.mtus(self.host(backend), int(self._tables.backends[backend]["mtu"]))

    def tunnel(self, packet: bytes, backend: int, hops: int = OUTER_TTL) -> list[tuple[int, bytes]]:
        row, inner = self._tables.backends[backend], read_ip(packet)
        if inner is None or row["state"] == GONE:
            self.unsent += 1
            return []
        packets, room = [inner], self.inner_mtu(backend)
        if (
            inner.length_bytes > room
            and inner.version == 4
            and not inner.dont_fragment
            and not _outer_may_fragment(row)
        ):
            packets = [
                part for piece in fragment_packet(packet, room, inner.identification) if (part := read_ip(piece))
            ]
        key = _key(inner.source, inner.destination, inner.ports or (0, 0))
        return [frame for one in packets for frame in self._tunnel(one, backend, key, hops)]

    def _tunnel(self, inner: Packet, backend: int, key: "Key", hops: int) -> list[tuple[int, bytes]]:
        """Return the frames of one packet, of which only the outer packet may be fragmented."""
        row, mtu_bytes = self._tables.backends[backend], self.path_mtu(backend)
        frame = self._encapsulate(inner.data, backend, inner.transport, key)
        outer = b"" if frame is None else frame[ETHERNET_BYTES:]
        if frame is None or (len(outer) > mtu_bytes and int(row["overhead_bytes"]) == 0):
            self.unsent += 1  # without a tunnel there is no outer header to fragment
            return []
        if hops != OUTER_TTL and int(row["overhead_bytes"]):
            outer = with_hops(outer, hops)
        pieces = fragment_packet(outer, mtu_bytes, next(self._identifications))
        return [(int(row["interface"]), frame[:ETHERNET_BYTES] + piece) for piece in pieces]

    def _choose(self, flow: Flow, enter: bool) -> int | None:
        target = int(_owner(self._worker.address, *_key_of(flow), np.uint64(self._now()), enter))
        return target if target >= 0 else None

    def _encapsulate(self, packet: bytes, backend: int, transport: int, key: "Key | None" = None) -> bytes | None:
        version = version_of(packet)
        frame = np.frombuffer(ethernet_header(version) + packet, np.uint8)
        if FRAME_AT + len(frame) > BUFFER_BYTES:
            return None
        self._buffer[FRAME_AT : FRAME_AT + len(frame)] = frame
        row: NDArray[Any] = self._tables.backends[backend : backend + 1].copy() if backend >= 0 else _NO_BACKEND
        row["mtu"] = ANY_MTU  # the caller checks whether it fits
        moved = int(
            _encapsulate_frame(
                self._worker.address, _address(self._buffer) + np.uint64(FRAME_AT), len(frame), _address(row),
                ETHERNET_BYTES + transport, version, *(key or _NO_KEY),
            )
        )  # fmt: skip
        if moved < 0:
            return None
        return bytes(self._buffer[FRAME_AT - moved : FRAME_AT + len(frame)])


def _outer_may_fragment(row: Any) -> bool:
    """Return whether a host recognises fragments of the outer packet: by its protocol, since they have no ports."""
    return not int(row["tunnel"]) & OUTER_IPV6 and int(row["tunnel"]) & KIND_MASK in (IPIP, GRE)


Key = tuple[np.uint64, np.uint64, np.uint64, np.uint64, np.uint32]
"""Addresses and ports in the data path's form."""


def _key(source: Address, destination: Address, ports: tuple[int, int]) -> Key:
    halves = (*to_pair(source), *to_pair(destination))
    loaded = port_to_wire(ports[0]) | port_to_wire(ports[1]) << 16
    return (*map(np.uint64, halves), np.uint32(loaded))  # type: ignore[return-value]


def _key_of(flow: Flow) -> tuple[Any, ...]:
    """Return a flow as the arguments of the compiled functions below."""
    return (*_key(flow.client, flow.vip, (flow.client_port, flow.vip_port)), flow.protocol, flow.client.version)


_NO_KEY: Key = (np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0), np.uint32(0))
_NO_BACKEND = np.zeros(1, BACKEND)


def _address(array: NDArray[Any]) -> np.uint64:
    return np.uint64(array.ctypes.data)


@step
def _packet_of(source_high, source_low, destination_high, destination_low, ports, protocol, family):  # type: ignore[no-untyped-def]
    """Return the packet in which a flow would arrive."""
    return Parsed(
        int64(PARSED), int64(family), source_high, source_low, destination_high, destination_low, u32(ports),
        int64(protocol), int64(0), int64(0), int64(0),
    )  # fmt: skip


@step
def _service_of(context, setting, packet):  # type: ignore[no-untyped-def]
    """The index of the packet's service, or -1."""
    index = service_of(context, setting, packet)
    return index if index < service_limit(context) else int64(-1)


@compiled
def _slots(  # type: ignore[no-untyped-def]
    context_address, source_high, source_low, destination_high, destination_low, ports, protocol, family
):
    """Return (the flow's service, its slot's backend, the slot's base); each may be -1."""
    context = context_at(context_address)
    packet = _packet_of(source_high, source_low, destination_high, destination_low, ports, protocol, family)
    setting = settings_row(settings(context), 0)
    index = _service_of(context, setting, packet)
    if index < 0:
        return int64(-1), int64(-1), int64(-1)
    service = active_service(context, setting, index)
    target, base = slot_pair(context, service, packet)
    return index, target, base_of(context, service, packet, base)


@compiled
def _assign(  # type: ignore[no-untyped-def]
    context_address, source_high, source_low, destination_high, destination_low, ports, protocol, family, now, backend
):
    """Write a backend to the flow's entries in every worker's table. If there is none, enter the flow in our own."""
    context = context_at(context_address)
    worker = int64(context_row(at_address(context_address), 0).worker)
    packet = _packet_of(source_high, source_low, destination_high, destination_low, ports, protocol, family)
    setting = settings_row(settings(context), 0)
    index = _service_of(context, setting, packet)
    if index < 0 or backend < 0 or backend >= backend_limit(context):
        return
    service, row = active_service(context, setting, index), backend_row(backends(context), backend)
    hashed = flow_hash(setting, source_high, source_low, packet.ports, destination_low)
    found = False
    for table_worker in range(worker_limit(context)):
        bucket, way = lookup(context, table_worker, hashed, source_high, source_low, packet.ports, index)
        if way >= 0:
            flow = flow_row(bucket, way)
            flow.target, flow.generation, flow.seen = u16(backend), row.generation, u32(now)
            found = True
    if not found:
        remember(
            context, setting, worker, hashed, source_high, source_low, packet.ports, index, backend, row.generation,
            service,
            u32(now),
        )  # fmt: skip
    target, base = slot_pair(context, service, packet)
    if service.tracking != TRACK_NONE and target == base and target >= 0 and target != backend:
        mark(context, service, packet)


@step
def mark(context, service, packet):  # type: ignore[no-untyped-def]
    """Have the flows of the packet's steady slot looked up: one of them is at another backend now."""
    slot = int64(service.slots) + scale(slot_hash(service, packet), service.size)
    slot_row(slots(context), slot).base = u16(NO_BASE)


@compiled
def _forget(  # type: ignore[no-untyped-def]
    context_address, source_high, source_low, destination_high, destination_low, ports, protocol, family
):
    """Delete the flow's entries in every worker's table."""
    context = context_at(context_address)
    packet = _packet_of(source_high, source_low, destination_high, destination_low, ports, protocol, family)
    setting = settings_row(settings(context), 0)
    index = _service_of(context, setting, packet)
    if index < 0:
        return
    hashed = flow_hash(setting, source_high, source_low, packet.ports, destination_low)
    for table_worker in range(worker_limit(context)):
        bucket, way = lookup(context, table_worker, hashed, source_high, source_low, packet.ports, index)
        if way >= 0:
            flow_row(bucket, way).state = 0


@compiled
def _owner(  # type: ignore[no-untyped-def]
    context_address, source_high, source_low, destination_high, destination_low, ports, protocol, family, now, enter
):
    """Return the backend of a flow, or -1 if there is none or the client may not use the service."""
    context = context_at(context_address)
    context_row(at_address(context_address), 0).now = now
    worker = int64(context_row(at_address(context_address), 0).worker)
    packet = _packet_of(source_high, source_low, destination_high, destination_low, ports, protocol, family)
    setting = settings_row(settings(context), 0)
    index = _service_of(context, setting, packet)
    if index < 0:
        return int64(-1)
    service = active_service(context, setting, index)
    if not allowed(context, service, source_high, source_low):
        return int64(-1)
    if enter:
        nothing = at_address(context_address)  # an empty frame, without a connection id
        return max(choose(context, setting, worker, nothing, nothing, packet, index, service, u32(now)), int64(-1))
    target = _entry_backend(context, setting, packet, index, service, now)
    if target < 0:
        target, _ = slot_pair(context, service, packet)
    return target


@step
def _entry_backend(context, setting, packet, index, service, now):  # type: ignore[no-untyped-def]
    """Return the backend of the flow's entry in any worker's table, or -1."""
    hashed = flow_hash(setting, packet.source_high, packet.source_low, packet.ports, packet.destination_low)
    target = int64(-1)
    for table_worker in range(worker_limit(context)):
        if target < 0:
            target = in_worker_table(context, table_worker, hashed, packet, index, service, u32(now))
    return target


@compiled
def _entry(  # type: ignore[no-untyped-def]
    context_address, source_high, source_low, destination_high, destination_low, ports, protocol, family, now
):
    context = context_at(context_address)
    packet = _packet_of(source_high, source_low, destination_high, destination_low, ports, protocol, family)
    setting = settings_row(settings(context), 0)
    index = _service_of(context, setting, packet)
    if index < 0:
        return int64(-1)
    return _entry_backend(context, setting, packet, index, active_service(context, setting, index), now)


@compiled
def _encapsulate_frame(  # type: ignore[no-untyped-def]
    context_address, address, length, backend_address, transport, family, source_high, source_low, destination_high,
    destination_low, ports,
):  # fmt: skip
    """Encapsulate the frame at ``address`` for the backend whose row is at ``backend_address``.

    Return by how many bytes it grew at its front, or -1.
    """
    context, record = context_at(context_address), context_row(at_address(context_address), 0)
    record.frame, record.end = address, address + u64(length)
    record.floor, record.flags = address - u64(HEADROOM_BYTES), u64(0)
    packet = Parsed(
        int64(PARSED), int64(family), source_high, source_low, destination_high, destination_low, u32(ports),
        int64(0), int64(0), int64(ETHERNET_BYTES), int64(transport),
    )  # fmt: skip
    setting, backend = settings_row(settings(context), 0), backend_row(at_address(backend_address), 0)
    verdict, _ = encapsulate(context, setting, at_address(address), packet, backend)
    return int64(address - record.frame) if verdict == FORWARDED else int64(-1)
