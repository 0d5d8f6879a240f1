"""Trace events: single frames of a mux or agent with their verdicts, and the filter that selects them.

This is off the packet path: frames and verdicts go in, and descriptions for people come out.  The filter is that of
flows (flow_filter), without what only flows have (state, idle, worker), and with

================  ==============================================================
icmp              ICMP and ICMPv6
verdict NAME      the frame's verdict, by its name in `lbmux show counters`
drop              dropped by its verdict, or by the slow path, which neither sent nor kept it
================  ==============================================================

Reading headers in plain Python is slow, so a Budget limits the number of frames per second.
"""

import contextlib
import struct
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import numpy as np

from lbmux.addresses import Address
from lbmux.config.models import Backend, Service
from lbmux.datapath.headers import (
    ETHERNET_BYTES,
    ICMP_PROTOCOL,
    ICMPV6_PROTOCOL,
    IPV4_BYTES,
    IPV6_BYTES,
    TAG_BYTES,
    TCP_BYTES,
    TCP_PROTOCOL,
    TYPE_IPV4,
    TYPE_IPV6,
    TYPE_QINQ,
    TYPE_VLAN,
    UDP_PROTOCOL,
)
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.frame_copy import FrameCopy
from lbmux.plurals import counted
from lbmux.tables.flow_filter import DIRECTIONS, END, TYPES, Network, Parser, is_address
from lbmux.tables.snapshot import Snapshot

IPV4_TYPE, IPV6_TYPE, *TAGS = (kind.to_bytes(2, "little") for kind in (TYPE_IPV4, TYPE_IPV6, TYPE_VLAN, TYPE_QINQ))
TYPE_AT, FLAGS_AT = 12, 13
"""In Ethernet's header the type, in TCP's the flags."""
IPV4_FIELDS, IPV6_FIELDS, PORTS = struct.Struct("!BxH2xHxB2x4s4s"), struct.Struct("!4xHBx16s16s"), struct.Struct("!HH")
"""Version and header's length, length, fragment, protocol, addresses; length, next header, addresses."""
OFFSET = 0x1FFF
"""The bits of ``fragment`` that say where in its datagram it belongs."""
NAMES = {ICMP_PROTOCOL: "icmp", ICMPV6_PROTOCOL: "icmp6", TCP_PROTOCOL: "tcp", UDP_PROTOCOL: "udp"}
FLAGS = "FSRP.U"
"""As tcpdump writes them, from the lowest bit."""


@dataclass(frozen=True)
class HeaderSummary:
    """What the headers say; None or 0 where a frame has no such thing, or is too short for it."""

    source: Address | None = None
    destination: Address | None = None
    protocol: int = -1
    source_port: int | None = None
    port: int | None = None
    flags: int = 0
    length: int = 0
    """Of the IP packet; of any other the frame's."""
    start: int = ETHERNET_BYTES
    """Where the IP header begins in the frame."""

    @classmethod
    def read(cls, frame: bytes) -> "HeaderSummary":
        """Read as many headers as are valid; a truncated or malformed frame raises no error."""
        at, kind = ETHERNET_BYTES, frame[TYPE_AT:ETHERNET_BYTES]
        while kind in TAGS:
            kind, at = frame[at + 2 : at + TAG_BYTES], at + TAG_BYTES
        if kind == IPV4_TYPE and len(frame) >= at + IPV4_BYTES:
            version_ihl, length, fragment, protocol, source, destination = IPV4_FIELDS.unpack_from(frame, at)
            ends: tuple[Address, Address] = IPv4Address(source), IPv4Address(destination)
            behind = None if fragment & OFFSET else at + (version_ihl & 15) * 4
            return cls._of(frame, ends, protocol, behind, length, at)
        if kind == IPV6_TYPE and len(frame) >= at + IPV6_BYTES:
            length, protocol, source, destination = IPV6_FIELDS.unpack_from(frame, at)
            ends = IPv6Address(source), IPv6Address(destination)
            return cls._of(frame, ends, protocol, at + IPV6_BYTES, IPV6_BYTES + length, at)
        return cls(length=len(frame))

    @classmethod
    def _of(
        cls, frame: bytes, ends: tuple[Address, Address], protocol: int, at: int | None, length: int, start: int
    ) -> "HeaderSummary":
        """``at``: where the transport's header begins, None in a later fragment."""
        if protocol not in (TCP_PROTOCOL, UDP_PROTOCOL) or at is None or len(frame) < at + PORTS.size:
            return cls(*ends, protocol, length=length, start=start)
        flags = frame[at + FLAGS_AT] if protocol == TCP_PROTOCOL and len(frame) >= at + TCP_BYTES else 0
        source_port, port = PORTS.unpack_from(frame, at)
        return cls(*ends, protocol, source_port, port, flags, length, start)

    @property
    def name(self) -> str:
        return NAMES.get(self.protocol, f"protocol {self.protocol}")

    def __str__(self) -> str:
        """One line, nearly as tcpdump has it."""
        if self.source is None:
            return f"not IP, {counted(self.length, 'byte')}"
        ends = f"{_end(self.source, self.source_port)} > {_end(self.destination, self.port)}"
        flags = "".join(letter for bit, letter in enumerate(FLAGS) if self.flags >> bit & 1)
        return f"{ends} {self.name}{f' [{flags}]' if flags else ''}, {counted(self.length, 'byte')}"


def _end(address: Address | None, port: int | None) -> str:
    host = f"[{address}]" if isinstance(address, IPv6Address) and port is not None else str(address)
    return host if port is None else f"{host}:{port}"


NO_DROPS = frozenset(
    ("from_mux", "reassembled", "path_mtu_learned", "fragment_timeout", "fragment_evicted", "reassembly_timeout",
     "reassembly_evicted")
)  # fmt: skip
"""What the slow path also counts of a frame that waits for others of its datagram, or was meant for the mux itself; and
of other frames, which leave the buffer because of it."""


@dataclass
class SlowPathNote:
    """What the slow path did with a frame: the names of its counters, and the frames that it sent."""

    did: list[str] = field(default_factory=list)
    sent: list[FrameCopy] = field(default_factory=list)

    @property
    def is_drop(self) -> bool:
        """A frame that it counts as nothing waits, or is left to the kernel's stack."""
        return not self.sent and not NO_DROPS.issuperset(self.did)


@contextlib.contextmanager
def note_slow_path(event: "TraceEvent", counts: Counter[str]) -> Iterator[SlowPathNote]:
    """While the slow path, which counts in ``counts``, has a frame: a note of that; frames sent are for it to add."""
    before, event.slow = counts.copy(), SlowPathNote()
    yield event.slow
    event.slow.did[:0] = counts - before


@dataclass
class TraceEvent:
    """A frame as it ``came``, its verdict, and as it ``left``, None if it did not leave."""

    came: FrameCopy
    verdict: Verdict
    service: str | None = None
    backend: str | None = None
    left: FrameCopy | None = None
    flow: bytes | None = None
    """The frame in whose headers the client and the VIP stand, where it is not the one that came."""
    is_reply: bool = False
    """At an agent: on its way to the client."""
    slow: SlowPathNote | None = None
    """Where the slow path had it."""

    @property
    def is_drop(self) -> bool:
        return self.verdict.kind == "drop" or (self.slow is not None and self.slow.is_drop)

    @cached_property
    def header_summary(self) -> HeaderSummary:
        return HeaderSummary.read(self.came.data if self.flow is None else self.flow)


def without_tunnel(came: bytes, left: bytes) -> bytes:
    """A frame as it left, without the headers between Ethernet's and the packet that came.

    Whatever the tunnel is, that packet is its end, and as long as it was.
    """
    inner, outer = HeaderSummary.read(came), HeaderSummary.read(left)
    end = outer.start + outer.length  # behind it there may be padding
    packet = left[end - inner.length : end]
    kind = TYPE_IPV6 if isinstance(inner.source, IPv6Address) else TYPE_IPV4
    return left[: ETHERNET_BYTES - 2] + kind.to_bytes(2, "little") + packet


Test = Callable[[TraceEvent], np.bool_]


def parse(text: str, snapshot: Snapshot) -> Test:
    """Compile a filter; an empty one matches every frame.  Raises FilterError if it is invalid."""
    if not text.strip():
        return lambda event: np.True_
    test: Any = _FrameParser(text, snapshot).whole()
    return lambda event: np.bool_(test(event))


class _FrameParser(Parser):
    """The grammar of flows, with tests of frames: np.bool_, which its and, or and not are made for, too."""

    WORDS = (*DIRECTIONS, *TYPES, "tcp", "udp", "icmp", "ip", "ip6", "service", "backend", "verdict", "drop", "and",
             "or", "not")  # fmt: skip
    ALONE = ("icmp", "drop", "verdict")

    def _primitive(self) -> Any:
        if word := self._take(*self.ALONE):
            self._kind = None
            return getattr(self, f"_{word}")()
        word = self._peek()
        if word not in (*self.WORDS, END) and not (self._kind or is_address(word)):
            raise self._error(f"{word!r} is not understood of frames: there are {', '.join(self.WORDS)}")
        return super()._primitive()

    def _icmp(self) -> Any:
        return lambda event: np.bool_(event.header_summary.protocol in (ICMP_PROTOCOL, ICMPV6_PROTOCOL))

    def _drop(self) -> Any:
        return lambda event: np.bool_(event.is_drop)

    def _verdict(self) -> Any:
        name = self._known("verdict", [verdict.label for verdict in Verdict])
        return lambda event: np.bool_(event.verdict.label == name)

    def _protocol(self, name: str) -> Any:
        if name in ("ip", "ip6"):
            wanted = IPv4Address if name == "ip" else IPv6Address
            return lambda event: np.bool_(isinstance(event.header_summary.source, wanted))
        return lambda event: np.bool_(event.header_summary.name == name)

    def _network(self, slash: bool) -> Any:
        text = self._value("an address or a network" if slash else "an address")
        try:
            network = ip_network(text) if slash else ip_network(ip_address(text))
        except ValueError as error:
            raise self._error(str(error), back=1) from error
        return (
            lambda event: _inside(network, event.header_summary.source),
            lambda event: _inside(network, event.header_summary.destination),
        )

    def _ports(self, first: int, last: int) -> Any:
        def within(port: int | None) -> np.bool_:
            return np.bool_(port is not None and first <= port <= last)

        return lambda event: within(event.header_summary.source_port), lambda event: within(event.header_summary.port)

    def _service(self) -> Any:
        name = self._known("service", [service.name for service in self._snapshot.services])
        return lambda event: np.bool_(event.service == name)

    def _backend(self) -> Any:
        pairs = [(s.name, b.name) for s, b in self._snapshot.owners.values()]
        name = self._known("backend", [b for _, b in pairs] + [f"{s}/{b}" for s, b in pairs])
        return lambda event: np.bool_(name in (event.backend, f"{event.service}/{event.backend}"))


def _inside(network: Network, address: Address | None) -> np.bool_:
    return np.bool_(address is not None and address.version == network.version and address in network)


class Names:
    """Finds a frame's service by its destination, and its backend by the row that the data path chose."""

    def __init__(self) -> None:
        self._services: tuple[Service, ...] = ()
        self._by_vip: dict[tuple[Address | None, str], list[Service]] = {}
        self._owners: dict[int, tuple[Service, Backend]] = {}

    def of(self, snapshot: Snapshot, header_summary: HeaderSummary, target: int) -> tuple[str | None, str | None]:
        if snapshot.services is not self._services:  # once a reload, not once a frame
            self._services, self._owners = snapshot.services, snapshot.owners
            self._by_vip = defaultdict(list)
            for service in sorted(snapshot.services, key=lambda service: service.port):
                self._by_vip[service.vip, service.protocol].append(service)
        owner = self._owners.get(target)
        if owner is not None:
            return owner[0].name, owner[1].name
        services = self._by_vip.get((header_summary.destination, header_summary.name), [])
        if not services or header_summary.port is None:
            return None, None
        nearest = services[bisect_right(services, header_summary.port, key=lambda service: service.port) - 1]
        if header_summary.port not in nearest.ports:
            nearest = services[0]  # where that has any port
        return nearest.name if header_summary.port in nearest.ports or nearest.port == 0 else None, None


class Budget:
    """Limits frames to ``a_second`` per second, and to as many at once; counts the frames beyond it."""

    def __init__(self, a_second: int, now: float) -> None:
        self._a_second, self._left, self._at = a_second, float(a_second), now
        self.skipped = 0

    @property
    def is_spent(self) -> bool:
        return self._left < 1

    def take(self, wanted: int, now: float) -> int:
        """How many of those ``wanted``."""
        self._left = min(self._a_second, self._left + (now - self._at) * self._a_second)
        self._at = now
        taken = min(wanted, int(self._left))
        self._left -= taken
        self.skipped += wanted - taken
        return taken
