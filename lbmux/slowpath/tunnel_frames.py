"""Frames that carry one packet to a backend's host, with the outer header that the data path writes."""

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address, from_pair, port_to_wire, to_pair
from lbmux.codegen.compiled import address_of, compiled
from lbmux.datapath.context import context_at, settings
from lbmux.datapath.encapsulate import encapsulate
from lbmux.datapath.memory import at_address, int64, u32, u64
from lbmux.datapath.parse import PARSED
from lbmux.datapath.parse import Packet as Parsed
from lbmux.datapath.tables import BACKEND, GONE, GRE, IPIP, KIND_MASK, OUTER_IPV6, backend_row, settings_row
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.fragment_out import fragment_packet
from lbmux.slowpath.slow_path_flow import OUTER_TTL
from lbmux.targets.native import HEADROOM_BYTES, Worker, context_row
from lbmux.wire.header_layouts import ETHERNET_BYTES
from lbmux.wire.numbers import IPV4_WITHOUT_OPTIONS
from lbmux.wire.packet import Packet, ethernet_header, read_ip, version_of, with_hops

BUFFER_BYTES = 1 << 17
FRAME_AT = 128
"""A frame's offset in the buffer, which leaves more headroom than the frame may need."""
ANY_MTU = 65535
FORWARDED = int(Verdict.FORWARDED)

Key = tuple[np.uint64, np.uint64, np.uint64, np.uint64, np.uint32]
"""Addresses and ports in the data path's form."""
_NO_KEY: Key = (np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0), np.uint32(0))
_NO_BACKEND = np.zeros(1, BACKEND)


class TunnelFrames:
    """Encapsulates packets for the backends of a worker's tables, and fragments what does not fit the path."""

    def __init__(self, worker: Worker) -> None:
        self._worker, self._tables = worker, worker.tables
        self._buffer = np.zeros(BUFFER_BYTES, np.uint8)
        self._identifications = count(1)
        self.mtus: Callable[[Address, int], int] = lambda host, mtu_bytes: mtu_bytes
        """Returns the path MTU to a host, given its first link's MTU."""
        self.unsent = 0
        """Packets that could not be sent: no such backend, or its MAC address is unknown."""

    def warm_up(self) -> None:
        """Compile the functions, or load them from the cache."""
        self._encapsulate(bytes([IPV4_WITHOUT_OPTIONS]) + bytes(39), -1, 0)

    def host(self, backend: int) -> Address:
        row = self._tables.backends[backend]
        return from_pair(int(row["remote_high"]), int(row["remote_low"]))

    def inner_mtu(self, backend: int) -> int:
        """Return the size in bytes of the largest packet that fits the path to a backend's host."""
        return self.path_mtu(backend) - int(self._tables.backends[backend]["overhead_bytes"])

    def path_mtu(self, backend: int) -> int:
        return self.mtus(self.host(backend), int(self._tables.backends[backend]["mtu"]))

    def tunnel(self, packet: bytes, backend: int, hops: int = OUTER_TTL) -> list[tuple[int, bytes]]:
        """Return (interface, frame) of the frames that carry an IP packet to a backend's host, as `Forwarder.tunnel`.

        An IPv4 packet that is too large is fragmented before encapsulation if the outer packet may not be.
        """
        row, inner = self._tables.backends[backend], read_ip(packet)
        if inner is None or row["state"] == GONE:
            self.unsent += 1
            return []
        packets, inner_mtu = [inner], self.inner_mtu(backend)
        if (
            inner.length_bytes > inner_mtu
            and inner.version == 4
            and not inner.dont_fragment
            and not _outer_may_fragment(row)
        ):
            packets = [
                part for piece in fragment_packet(packet, inner_mtu, inner.identification) if (part := read_ip(piece))
            ]
        key = key_of(inner.source, inner.destination, inner.ports or (0, 0))
        return [frame for one in packets for frame in self._tunnel(one, backend, key, hops)]

    def _tunnel(self, inner: Packet, backend: int, key: Key, hops: int) -> list[tuple[int, bytes]]:
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

    def _encapsulate(self, packet: bytes, backend: int, transport: int, key: Key = _NO_KEY) -> bytes | None:
        version = version_of(packet)
        frame = np.frombuffer(ethernet_header(version) + packet, np.uint8)
        if FRAME_AT + len(frame) > BUFFER_BYTES:
            return None
        self._buffer[FRAME_AT : FRAME_AT + len(frame)] = frame
        row: NDArray[Any] = self._tables.backends[backend : backend + 1].copy() if backend >= 0 else _NO_BACKEND
        row["mtu"] = ANY_MTU  # the caller checks whether it fits
        moved = int(
            _encapsulate_frame(
                self._worker.address, address_of(self._buffer) + np.uint64(FRAME_AT), len(frame), address_of(row),
                ETHERNET_BYTES + transport, version, *key,
            )
        )  # fmt: skip
        if moved < 0:
            return None
        return bytes(self._buffer[FRAME_AT - moved : FRAME_AT + len(frame)])


def key_of(source: Address, destination: Address, ports: tuple[int, int]) -> Key:
    halves = (*to_pair(source), *to_pair(destination))
    loaded = port_to_wire(ports[0]) | port_to_wire(ports[1]) << 16
    return (*map(np.uint64, halves), np.uint32(loaded))  # type: ignore[return-value]


def _outer_may_fragment(row: Any) -> bool:
    """Return whether a host recognises fragments of the outer packet: by its protocol, since they have no ports."""
    return not int(row["tunnel"]) & OUTER_IPV6 and int(row["tunnel"]) & KIND_MASK in (IPIP, GRE)


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
