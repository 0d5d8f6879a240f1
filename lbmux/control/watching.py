"""Watching: single frames that a mux has forwarded or not, and the filter that picks them.

Beside the packet's way: bytes and what the data path said of them go in, what people are shown comes out.  The
filter is that of flows (flow_filter), less what only flows have (state, idle, worker), and with

================  ==============================================================
icmp              ICMP and ICMPv6
verdict NAME      what became of the frame, as `lbmux show counters` names it
drop              any verdict that drops
================  ==============================================================

Headers are read in plain Python, which is slow: a Budget says how many frames a second are looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import numpy as np

from lbmux.addresses import Address, from_pair, from_wire32, port_from_wire
from lbmux.control.config import Backend, Service
from lbmux.control.flow_filter import DIRECTIONS, END, TYPES, Network, _is_address, _Parser
from lbmux.control.moment import Moment
from lbmux.datapath.headers import (
    ETHERNET,
    ETHERNET_BYTES,
    ICMP_PROTOCOL,
    ICMPV6_PROTOCOL,
    IPV4,
    IPV4_BYTES,
    IPV6,
    IPV6_BYTES,
    TAG,
    TAG_BYTES,
    TCP,
    TCP_BYTES,
    TCP_PROTOCOL,
    TYPE_IPV4,
    TYPE_IPV6,
    TYPE_QINQ,
    TYPE_VLAN,
    UDP_PROTOCOL,
)
from lbmux.datapath.verdicts import Verdict

PAUSE_S = 0.02
LOOKED_AT_BYTES = 100
"""Of a frame: two tags, an IPv4 header with options and TCP's ports and flags stand in them."""
OFFSET = 0xFF1F
"""As loaded: the bits of IPv4's ``fragment`` that say where in its datagram it belongs."""
NAMES = {ICMP_PROTOCOL: "icmp", ICMPV6_PROTOCOL: "icmp6", TCP_PROTOCOL: "tcp", UDP_PROTOCOL: "udp"}
FLAGS = "FSRP.U"
"""As tcpdump writes them, from the lowest bit."""


@dataclass(frozen=True)
class Heading:
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
    def read(cls, frame: bytes) -> "Heading":
        """Never fails: of a frame that ends early or makes no sense only what comes before."""
        start = frame[:LOOKED_AT_BYTES]
        at, kind = ETHERNET_BYTES, _field(start, ETHERNET, 0, "type")
        while kind in (TYPE_VLAN, TYPE_QINQ):
            kind, at = _field(start, TAG, at, "type"), at + TAG_BYTES
        if kind == TYPE_IPV4 and len(start) >= at + IPV4_BYTES:
            ip = np.frombuffer(start, IPV4, 1, at)[0]
            ends: tuple[Address, Address] = from_wire32(int(ip["source"])), from_wire32(int(ip["destination"]))
            behind = at + (int(ip["version_ihl"]) & 15) * 4
            whole = not int(ip["fragment"]) & OFFSET
            length = port_from_wire(int(ip["length"]))
            found = cls._of(start, ends, int(ip["protocol"]), behind if whole else None, length)
            return replace(found, start=at)
        if kind == TYPE_IPV6 and len(start) >= at + IPV6_BYTES:
            ip = np.frombuffer(start, IPV6, 1, at)[0]
            ends = (
                from_pair(int(ip["source_high"]), int(ip["source_low"])),
                from_pair(int(ip["destination_high"]), int(ip["destination_low"])),
            )
            length = IPV6_BYTES + port_from_wire(int(ip["length"]))
            return replace(cls._of(start, ends, int(ip["next"]), at + IPV6_BYTES, length), start=at)
        return cls(length=len(frame))

    @classmethod
    def _of(
        cls, start: bytes, ends: tuple[Address, Address], protocol: int, at: int | None, length: int
    ) -> "Heading":
        """``at``: where the transport's header begins, None in a later fragment."""
        if protocol not in (TCP_PROTOCOL, UDP_PROTOCOL) or at is None or len(start) < at + 4:
            return cls(*ends, protocol, length=length)
        source_port, port = (int.from_bytes(start[place : place + 2], "big") for place in (at, at + 2))
        flags = _field(start, TCP, at, "flags") if protocol == TCP_PROTOCOL and len(start) >= at + TCP_BYTES else 0
        return cls(*ends, protocol, source_port, port, flags, length)

    @property
    def name(self) -> str:
        return NAMES.get(self.protocol, f"protocol {self.protocol}")

    def __str__(self) -> str:
        """One line, nearly as tcpdump has it."""
        if self.source is None:
            return f"not IP, {self.length} bytes"
        ends = f"{_end(self.source, self.source_port)} > {_end(self.destination, self.port)}"
        flags = "".join(letter for bit, letter in enumerate(FLAGS) if self.flags >> bit & 1)
        return f"{ends} {self.name}{f' [{flags}]' if flags else ''}, {self.length} bytes"


def _end(address: Address | None, port: int | None) -> str:
    host = f"[{address}]" if isinstance(address, IPv6Address) and port is not None else str(address)
    return host if port is None else f"{host}:{port}"


def _field(start: bytes, header: np.dtype[Any], at: int, name: str) -> int:
    return int(np.frombuffer(start, header, 1, at)[0][name]) if len(start) >= at + header.itemsize else 0


@dataclass(frozen=True)
class Seen:
    """A frame as it ``came``, what was said of it, and as it ``left``, None where it did not."""

    time_ns: int
    came: bytes
    verdict: Verdict
    service: str | None = None
    backend: str | None = None
    came_by: int = 0
    left: bytes | None = None
    left_by: int = 0

    @cached_property
    def heading(self) -> Heading:
        return Heading.read(self.came)


def without_tunnel(came: bytes, left: bytes) -> bytes:
    """A frame as it left, without the headers between Ethernet's and the packet that came.

    Whatever the tunnel is, that packet is its end, and as long as it was.
    """
    inner, outer = Heading.read(came), Heading.read(left)
    end = outer.start + outer.length  # behind it there may be padding
    packet = left[end - inner.length : end]
    kind = TYPE_IPV6 if isinstance(inner.source, IPv6Address) else TYPE_IPV4
    return left[: ETHERNET_BYTES - 2] + kind.to_bytes(2, "little") + packet


Test = Callable[[Seen], np.bool_]


def parse(text: str, moment: Moment) -> Test:
    """The test that a filter stands for (nothing: every frame); FilterError for one that is not understood."""
    if not text.strip():
        return lambda seen: np.True_
    test: Any = _FrameParser(text, moment).whole()
    return lambda seen: np.bool_(test(seen))


class _FrameParser(_Parser):
    """The grammar of flows, with tests of frames: np.bool_, which its and, or and not are made for, too."""

    WORDS = (*DIRECTIONS, *TYPES, "tcp", "udp", "icmp", "ip", "ip6", "service", "backend", "verdict", "drop", "and",
             "or", "not")  # fmt: skip
    ALONE = ("icmp", "drop", "verdict")

    def _primitive(self) -> Any:
        if word := self._take(*self.ALONE):
            self._kind = None
            return getattr(self, f"_{word}")()
        word = self._peek()
        if word not in (*self.WORDS, END) and not (self._kind or _is_address(word)):
            raise self._error(f"{word!r} is not understood of frames: there are {', '.join(self.WORDS)}")
        return super()._primitive()

    def _icmp(self) -> Any:
        return lambda seen: np.bool_(seen.heading.protocol in (ICMP_PROTOCOL, ICMPV6_PROTOCOL))

    def _drop(self) -> Any:
        return lambda seen: np.bool_(seen.verdict.kind == "drop")

    def _verdict(self) -> Any:
        name = self._known("verdict", [verdict.label for verdict in Verdict])
        return lambda seen: np.bool_(seen.verdict.label == name)

    def _protocol(self, name: str) -> Any:
        if name in ("ip", "ip6"):
            wanted = IPv4Address if name == "ip" else IPv6Address
            return lambda seen: np.bool_(isinstance(seen.heading.source, wanted))
        return lambda seen: np.bool_(seen.heading.name == name)

    def _network(self, slash: bool) -> Any:
        text = self._value("an address or a network" if slash else "an address")
        try:
            network = ip_network(text) if slash else ip_network(ip_address(text))
        except ValueError as error:
            raise self._error(str(error), back=1) from error
        return (
            lambda seen: _inside(network, seen.heading.source),
            lambda seen: _inside(network, seen.heading.destination),
        )

    def _ports(self, first: int, last: int) -> Any:
        def within(port: int | None) -> np.bool_:
            return np.bool_(port is not None and first <= port <= last)

        return lambda seen: within(seen.heading.source_port), lambda seen: within(seen.heading.port)

    def _service(self) -> Any:
        name = self._known("service", [service.name for service in self._moment.services])
        return lambda seen: np.bool_(seen.service == name)

    def _backend(self) -> Any:
        pairs = [(s.name, b.name) for s, b in self._moment.owners.values()]
        name = self._known("backend", [b for _, b in pairs] + [f"{s}/{b}" for s, b in pairs])
        return lambda seen: np.bool_(name in (seen.backend, f"{seen.service}/{seen.backend}"))


def _inside(network: Network, address: Address | None) -> np.bool_:
    return np.bool_(address is not None and address.version == network.version and address in network)


class Names:
    """Whose a frame is: its service by its destination, its backend by the row that it was given."""

    def __init__(self) -> None:
        self._services: tuple[Service, ...] = ()
        self._by_key: dict[tuple[Address, str, int], str] = {}
        self._owners: dict[int, tuple[Service, Backend]] = {}

    def of(self, moment: Moment, heading: Heading, target: int) -> tuple[str | None, str | None]:
        if moment.services is not self._services:  # once a reload, not once a frame
            self._services, self._owners = moment.services, moment.owners
            self._by_key = {(s.vip, s.protocol, s.port): s.name for s in moment.services}
        owner = self._owners.get(target)
        if owner is not None:
            return owner[0].name, owner[1].name
        if heading.destination is None or heading.port is None:
            return None, None
        return self._by_key.get((heading.destination, heading.name, heading.port)), None


class Budget:
    """How many frames may be looked at: ``a_second``, and that many at once; it counts those that may not.

    Once spent it waits for PAUSE_S' worth: asked for every batch, it is to cost nothing then.
    """

    def __init__(self, a_second: int, now: float) -> None:
        self._a_second, self._left, self._at = a_second, float(a_second), now
        self._pause = 0.0
        self.skipped = 0

    def take(self, wanted: int, now: float) -> int:
        """How many of those ``wanted``."""
        if now < self._pause:
            self.skipped += wanted
            return 0
        self._left = min(self._a_second, self._left + (now - self._at) * self._a_second)
        self._at = now
        taken = min(wanted, int(self._left))
        self._left -= taken
        self.skipped += wanted - taken
        if self._left < 1:
            self._pause = now + PAUSE_S
        return taken
