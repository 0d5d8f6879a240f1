"""Fragments: all fragments of a datagram go to the backend of its flow, in whatever order they arrive.

Only the first fragment has the ports. It selects the backend, and the others with the same (source, destination,
identification, protocol) follow. Fragments that arrive before it wait, in a bounded buffer for a bounded time. A mux
does not reassemble: it forwards the fragments unchanged. RFC 791 and RFC 8200 allow a datagram at most 60 s.

Dropped: first fragments without the whole transport header, and TCP fragments at its eighth byte (RFC 1858, RFC 3128,
RFC 7112); all of a datagram whose fragments overlap (RFC 5722); fragments that extend beyond the largest datagram.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from lbmux.addresses import Address
from lbmux.config.slowpath_models import Fragments as Limits
from lbmux.slowpath.slow_path_flow import Flow
from lbmux.slowpath.source_budget import prefix_of
from lbmux.wire.header_layouts import TCP_BYTES, UDP_BYTES
from lbmux.wire.numbers import OFFSET_UNIT_BYTES, TCP_PROTOCOL, UDP_PROTOCOL
from lbmux.wire.packet import Packet

LEAST_BYTES = {TCP_PROTOCOL: TCP_BYTES, UDP_PROTOCOL: UDP_BYTES}
"""The minimum transport header in a first fragment. Fragments of other protocols belong to no service."""
FLAGS_AT = 8
"""A TCP fragment that begins here or earlier could overwrite flags that a filter has checked."""
MOST_BYTES, MOST_FRAGMENTS = 65535, 256

Key = tuple[Address, Address, int, int]


@dataclass
class Datagram:
    """The state of one datagram: its backend, once the first fragment has arrived, and the bytes that have arrived."""

    seen: float
    backend: int | None = None
    decided: bool = False
    """Whether the first fragment has arrived. If there is no backend then, the others are dropped."""
    overlapped: bool = False
    ranges: list[tuple[int, int]] = field(default_factory=list)
    waiting: list[tuple[float, Packet]] = field(default_factory=list)


class Fragments:
    """The fragmented datagrams in transit through one mux."""

    def __init__(self, limits: Limits, choose: Callable[[Flow], int | None], counts: Counter[str]) -> None:
        """``choose`` returns the backend of a flow, which may be new. ``counts`` are the counters to update."""
        self.limits = limits
        self.counts = counts
        self._choose = choose
        self._datagrams: OrderedDict[Key, Datagram] = OrderedDict()
        self._waiting = 0
        self._held = Counter[bytes]()
        """The same by prefix of the source. A prefix holds no more than is free: one alone fills half of the buffer."""
        self._queue: deque[tuple[float, Key]] = deque()
        """(start, datagram) of those that wait for their first fragment, oldest first; some may no longer wait."""

    def __len__(self) -> int:
        return len(self._datagrams)

    @property
    def waiting(self) -> int:
        """Fragments in the buffer."""
        return self._waiting

    def arrive(self, packet: Packet, now: float) -> list[tuple[Packet, int]]:
        """Add a fragment. Return the fragments that can be forwarded now, each with its backend."""
        self.expire(now)
        fault = _fault(packet)
        if fault:
            self.counts[fault] += 1
            return []
        datagram = self._datagram(packet, now)
        if not self._is_new(datagram, packet):
            return []
        if packet.offset_bytes:
            return self._later(datagram, packet, now)
        ports = packet.ports
        assert ports is not None  # _fault has checked
        flow = Flow(packet.protocol, packet.source, ports[0], packet.destination, ports[1])
        datagram.backend, datagram.decided = self._choose(flow), True
        waiting = [held for _, held in datagram.waiting]
        self._forget_waiting(datagram)
        return self._on(datagram, [packet, *waiting])

    def expire(self, now: float) -> None:
        """Drop what is too old. Datagrams are ordered by their last fragment's arrival."""
        while self._datagrams:
            key, datagram = next(iter(self._datagrams.items()))
            if now - datagram.seen <= self.limits.idle_s:
                break
            self._drop(key, "fragment_timeout")
        while self._queue and now - self._queue[0][0] > self.limits.buffered_s:
            _, key = self._queue.popleft()
            pending = self._datagrams.get(key)
            if pending is not None and pending.waiting and now - pending.waiting[0][0] > self.limits.buffered_s:
                self._drop(key, "fragment_timeout")

    def _datagram(self, packet: Packet, now: float) -> Datagram:
        key = _key(packet)
        datagram = self._datagrams.get(key)
        if datagram is None:
            if len(self._datagrams) >= self.limits.datagrams:
                self._drop(next(iter(self._datagrams)), "fragment_evicted")
            datagram = self._datagrams[key] = Datagram(now)
        datagram.seen = now
        self._datagrams.move_to_end(key)
        return datagram

    def _is_new(self, datagram: Datagram, packet: Packet) -> bool:
        """Return whether the fragment has only new bytes. An overlap makes the whole datagram unusable."""
        first = packet.offset_bytes
        end = first + len(packet.payload)
        if datagram.overlapped:
            self.counts["fragment_overlap"] += 1
            return False
        if (first, end) in datagram.ranges:
            self.counts["fragment_duplicate"] += 1  # RFC 8200, section 4.5: may be ignored
            return False
        if any(first < other_end and other < end for other, other_end in datagram.ranges):
            self.counts["fragment_overlap"] += 1
            datagram.overlapped = True
            self._forget_waiting(datagram)
            return False
        if len(datagram.ranges) >= MOST_FRAGMENTS:
            self.counts["fragment_too_many"] += 1
            return False
        datagram.ranges.append((first, end))
        return True

    def _later(self, datagram: Datagram, packet: Packet, now: float) -> list[tuple[Packet, int]]:
        if datagram.decided:
            return self._on(datagram, [packet])
        prefix = prefix_of(packet.source.packed)
        if self._held[prefix] >= self.limits.buffered - self._waiting:  # Choudhury and Hahne 1998: dynamic thresholds
            self.counts["fragment_no_buffer"] += 1
            return []
        if not datagram.waiting:
            self._queue.append((now, _key(packet)))
        datagram.waiting.append((now, packet))
        self._waiting += 1
        self._held[prefix] += 1
        return []

    def _on(self, datagram: Datagram, packets: list[Packet]) -> list[tuple[Packet, int]]:
        if datagram.backend is None:
            self.counts["fragment_no_backend"] += len(packets)
            return []
        self.counts["fragment_forwarded"] += len(packets)
        return [(packet, datagram.backend) for packet in packets]

    def _forget_waiting(self, datagram: Datagram) -> None:
        if datagram.waiting:
            self._waiting -= len(datagram.waiting)
            prefix = prefix_of(datagram.waiting[0][1].source.packed)
            self._held[prefix] -= len(datagram.waiting)
            if not self._held[prefix]:
                del self._held[prefix]
        datagram.waiting = []

    def _drop(self, key: Key, why: str) -> None:
        datagram = self._datagrams.pop(key)
        if datagram.waiting:
            self.counts[why] += len(datagram.waiting)
            self._forget_waiting(datagram)


def _key(packet: Packet) -> Key:
    return packet.source, packet.destination, packet.identification, packet.protocol


def _fault(packet: Packet) -> str:
    """Return the counter for an unusable fragment, or an empty string if the fragment by itself is valid."""
    length = len(packet.payload)
    if packet.protocol not in LEAST_BYTES:
        return "fragment_protocol"
    if packet.offset_bytes + length > MOST_BYTES or length == 0 or (packet.more and length % OFFSET_UNIT_BYTES):
        return "fragment_malformed"
    if packet.offset_bytes == 0 and length < LEAST_BYTES[packet.protocol]:
        return "fragment_tiny"
    if packet.protocol == TCP_PROTOCOL and 0 < packet.offset_bytes <= FLAGS_AT:
        return "fragment_tiny"
    return ""
