"""Reassembly of fragments at a host, which needs whole packets to translate them.

Packets, bytes and time are bounded (RFC 791, RFC 8200 section 4.5). When there are too many, the oldest packet goes of
the source prefix that holds most, so one source cannot drive out the packets of others. A packet whose fragments
overlap is dropped (RFC 5722); exact duplicates are ignored.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from lbmux.addresses import Address
from lbmux.slowpath.source_budget import prefix_of
from lbmux.wire.header_layouts import EXTENSION, FRAGMENT_BYTES, IPV4, IPV6, IPV6_BYTES, PROTOCOL_AT
from lbmux.wire.internet_checksum import with_header_checksum
from lbmux.wire.numbers import OFFSET_UNIT_BYTES
from lbmux.wire.packet import Packet, extension_bytes

MOST_PACKETS, MOST_BYTES, TIMEOUT_S = 256, 4 << 20, 2.0
PACKET_COST = MOST_BYTES // MOST_PACKETS
"""What a packet costs its prefix beside its bytes."""
LARGEST_BYTES = 65535

Key = tuple[Address, Address, int, int]


@dataclass
class Parts:
    """The fragments of one packet that have arrived."""

    since: float
    pieces: dict[int, Packet] = field(default_factory=dict)
    overlaps: bool = False
    size_bytes: int = 0


class Reassembly:
    """The packets that are still incomplete."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._packets: OrderedDict[Key, Parts] = OrderedDict()
        self._bytes = 0
        self._held = Counter[bytes]()
        """The costs of the packets of each prefix."""

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def add(self, fragment: Packet, now: float) -> bytes | None:
        """Add a fragment. Return the whole packet if the fragment completes it."""
        self._expire(now)
        length, end = len(fragment.payload), fragment.offset_bytes + len(fragment.payload)
        if length == 0 or end > LARGEST_BYTES - IPV6_BYTES or (fragment.more and length % OFFSET_UNIT_BYTES):
            self._counts["reassembly_malformed"] += 1
            return None
        key = (fragment.source, fragment.destination, fragment.identification, fragment.protocol)
        if key not in self._packets:
            self._packets[key] = Parts(now)
            self._hold(key, PACKET_COST)
        parts = self._packets[key]
        if not self._fits(parts, key, fragment):
            return None
        parts.pieces[fragment.offset_bytes] = fragment
        parts.size_bytes += length
        self._bytes += length
        self._hold(key, length)
        whole = _join(parts.pieces)
        if whole is not None:
            self._forget(key)
            self._counts["reassembled"] += 1
            return whole
        while self._bytes > MOST_BYTES or len(self._packets) > MOST_PACKETS:
            most = max(self._held, key=self._held.__getitem__)
            self._forget(next(one for one in self._packets if prefix_of(one[0].packed) == most))
            self._counts["reassembly_evicted"] += 1
        return None

    def _hold(self, key: Key, cost: int) -> None:
        prefix = prefix_of(key[0].packed)
        self._held[prefix] += cost
        if not self._held[prefix]:
            del self._held[prefix]

    def _fits(self, parts: Parts, key: Key, fragment: Packet) -> bool:
        first, end = fragment.offset_bytes, fragment.offset_bytes + len(fragment.payload)
        if parts.overlaps:
            self._counts["reassembly_overlap"] += 1
            return False
        for other in parts.pieces.values():
            if (first, end) == (other.offset_bytes, other.offset_bytes + len(other.payload)):
                self._counts["reassembly_duplicate"] += 1
                return False
            if first < other.offset_bytes + len(other.payload) and other.offset_bytes < end:
                self._counts["reassembly_overlap"] += 1
                self._bytes -= parts.size_bytes
                self._hold(key, -parts.size_bytes)
                parts.overlaps, parts.pieces, parts.size_bytes = True, {}, 0
                return False
        return True

    def _expire(self, now: float) -> None:
        while self._packets:
            key, parts = next(iter(self._packets.items()))
            if now - parts.since <= TIMEOUT_S:
                break
            self._forget(key)
            self._counts["reassembly_timeout"] += 1

    def _forget(self, key: Key) -> None:
        size_bytes = self._packets.pop(key).size_bytes
        self._bytes -= size_bytes
        self._hold(key, -PACKET_COST - size_bytes)


def _join(pieces: dict[int, Packet]) -> bytes | None:
    """Return the whole packet if all its fragments are present, else None."""
    first, at = pieces.get(0), 0
    if first is None:
        return None
    payload = []
    while True:
        piece = pieces.get(at)
        if piece is None:
            return None
        payload.append(piece.payload)
        at += len(piece.payload)
        if not piece.more:
            break
    return _whole(first, b"".join(payload))


def _whole(first: Packet, payload: bytes) -> bytes | None:
    """Join the first fragment's header, without its fragment fields, and the payload. Return None if it is too long."""
    header = first.data[: first.transport]
    length = len(header) + len(payload)
    if first.version == 4:
        if length > LARGEST_BYTES:
            return None
        return with_header_checksum(IPV4.replace(header, length=length, fragment=0)) + payload
    head = bytearray(header)
    next_at, at = PROTOCOL_AT[6], IPV6_BYTES
    while at < first.fragment_at:  # the preceding header must name the header after the fragment header
        next_at, at = at + EXTENSION.at("next"), at + extension_bytes(head[next_at], header, at)
    head[next_at] = EXTENSION.unpack(header, first.fragment_at).next
    del head[first.fragment_at : first.fragment_at + FRAGMENT_BYTES]
    return IPV6.replace(bytes(head), length=len(head) - IPV6_BYTES + len(payload)) + payload
