"""What a mux does with a frame that the data path handed up: the slow path's one entry.

    verdict, frame -> whose is it? -> ping | ICMP error | fragment | too big | out of hops | returned by a host
                   -> frames to send

Everything is bounded: packets in a second that are looked at, ICMP messages in a second that are sent, and what is
remembered.  Frames that are not for a VIP, nor about or from another mux for us, are left to the kernel's stack.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from lbmux.addresses import Address
from lbmux.control.config_slowpath import SlowPath
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath import errors
from lbmux.slowpath.checksums import TCP, UDP
from lbmux.slowpath.cutting import cut
from lbmux.slowpath.echo import echo_reply, is_echo_request
from lbmux.slowpath.flow import Flow, Forwarder
from lbmux.slowpath.fragments import Fragments
from lbmux.slowpath.muxes import CARRIES, OUTER_BYTES, is_from_mux, owner_of, sharing, to_mux
from lbmux.slowpath.packets import Packet, read_frame, read_ip, turned
from lbmux.slowpath.path_mtu import PathMtus, read_outer_error
from lbmux.slowpath.quoted import flow_of
from lbmux.slowpath.rate import Bucket
from lbmux.slowpath.resets import reset
from lbmux.slowpath.returned import Searches

HANDED_UP = (Verdict.FRAGMENT, Verdict.ICMP, Verdict.TOO_BIG, Verdict.TTL, Verdict.PROTOCOL)
"""Verdicts of frames that may be ours; PROTOCOL for fragments that another mux sends on, and what hosts return."""
BY_ROUTE = -1
LINK_BYTES = 1500
"""Between muxes, whose links the tables do not know."""


class Sent(NamedTuple):
    """A frame to send by an interface (0: the one it came in by); or a packet, where the kernel finds the way."""

    interface: int
    data: bytes


@dataclass(frozen=True)
class Place:
    """What the configuration says that is of meaning here."""

    settings: SlowPath
    vips: Mapping[Address, Flow]
    """Each VIP, with a flow without a client: protocol and port of the service that a forwarded ping goes to."""
    muxes: frozenset[Address] = frozenset()
    hosts: frozenset[Address] = frozenset()


@dataclass
class MuxSlowPath:
    """``is_up``: whether a VIP has a backend that takes new flows; ``own``: the mux's outer source addresses."""

    forwarder: Forwarder
    own: frozenset[Address]
    place: Place
    is_up: Callable[[Address], bool]
    mtus: PathMtus = field(default_factory=PathMtus)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._fragments = Fragments(self.place.settings.fragments, self.forwarder.enter, self.counts)
        self.configure(self.place)

    def configure(self, place: Place) -> None:
        """Another configuration; fragments under way keep their backends."""
        self.place, settings = place, place.settings
        self._work = Bucket(settings.packets_per_s)
        self._messages = Bucket(settings.icmp_per_s)
        self._fragments.limits = settings.fragments
        self._sharing = sharing(place.muxes, self.own)
        self._searches = Searches()

    def handle(self, verdict: Verdict, frame: bytes, target: int, now: float) -> list[Sent]:
        """What is to be sent because of one frame; ``target``: the backend that the data path chose, or -1."""
        packet = read_frame(frame)
        if packet is None or not (packet.destination in self.place.vips or packet.destination in self.own):
            return []
        if not self._work.take(now):
            return self._dropped("over_packets_per_s")
        if packet.destination in self.own:
            return self._to_us(packet, now)
        if packet.is_fragment and verdict not in (Verdict.TOO_BIG, Verdict.TTL):
            return self._fragment(packet, now, from_mux=False)
        if verdict == Verdict.TTL or (packet.hops <= 1 and not is_echo_request(packet)):
            return self._answer(packet, errors.time_exceeded(packet, packet.destination), "time_exceeded", now)
        if verdict == Verdict.TOO_BIG and target >= 0:
            return self._forward(packet, target, now)
        return self._icmp(packet, now) if packet.is_icmp else []

    def _to_us(self, packet: Packet, now: float) -> list[Sent]:
        if is_from_mux(packet, self.place.muxes):
            inner = read_ip(packet.payload, link=packet.link)
            if inner is None or not inner.is_fragment or inner.destination not in self.place.vips:
                return self._dropped("from_mux_unusable")
            self.counts["from_mux"] += 1
            return self._fragment(inner, now, from_mux=True)
        if packet.protocol in CARRIES.values() and not packet.is_fragment and packet.source in self.place.hosts:
            return self._returned(packet, now)
        return self._about_outer(packet, now) if errors.is_error(packet) else []

    def _returned(self, packet: Packet, now: float) -> list[Sent]:
        """A host has no such connection: another is tried, and where none has it the client hears it."""
        inner = read_ip(packet.payload, link=packet.link)
        flow = None if inner is None else _flow(inner)
        if inner is None or flow is None or flow.vip not in self.place.vips:
            return self._dropped("returned_unusable")
        candidates = self.forwarder.candidates(flow, self.place.settings.hosts_asked)
        refused = self.forwarder.at_host(candidates, packet.source)
        segment = int.from_bytes(inner.payload[4:8], "big"), inner.length_bytes
        if self._searches.is_copy(flow, segment, refused):
            return self._dropped("returned_copy")
        backend = self._searches.next(flow, segment, refused, candidates, now)
        if backend is not None:
            self.counts["returned_forwarded"] += 1
            self.forwarder.give(flow, backend)
            return self._tunnelled(inner, backend)
        self.forwarder.forget(flow)
        answer = reset(inner)
        if answer is None:
            return self._dropped("returned_not_answered")
        self.counts["returned_reset"] += 1
        return [Sent(BY_ROUTE, answer)]

    def _icmp(self, packet: Packet, now: float) -> list[Sent]:
        if is_echo_request(packet):
            return self._echo(packet, now)
        flow = flow_of(packet)
        if flow is None:
            return self._dropped("icmp_unusable")
        backend = self.forwarder.owner(flow)
        if backend is None:
            return self._dropped("icmp_no_flow")
        self.counts["icmp_forwarded"] += 1
        return self._tunnelled(packet, backend)

    def _echo(self, packet: Packet, now: float) -> list[Sent]:
        if self.place.settings.echo == "drop" or not self.is_up(packet.destination):
            return self._dropped("echo_dropped")
        if self.place.settings.echo == "answer":
            return self._answer(packet, echo_reply(packet), "echo_answered", now)
        asked = self.place.vips[packet.destination]
        number = int.from_bytes(packet.payload[4:6], "big")
        backend = self.forwarder.owner(asked._replace(client=packet.source, client_port=number))
        if backend is None or packet.hops <= 1:
            return self._dropped("echo_dropped")
        self.counts["echo_forwarded"] += 1
        return self._tunnelled(packet, backend)

    def _fragment(self, packet: Packet, now: float, from_mux: bool) -> list[Sent]:
        if self._sharing and not from_mux:
            owner = owner_of(packet, self._sharing)
            if owner not in self.own:
                return self._sent_to(owner, packet)
        if packet.hops <= 1:
            return self._answer(packet, errors.time_exceeded(packet, packet.destination), "time_exceeded", now)
        return [
            sent for one, backend in self._fragments.arrive(packet, now) for sent in self._forward(one, backend, now)
        ]

    def _sent_to(self, mux: Address, packet: Packet) -> list[Sent]:
        source = next(address for address in self.own if address.version == mux.version)
        room = LINK_BYTES - OUTER_BYTES[mux.version]
        pieces = [packet.data]
        if packet.version == 4 and packet.length_bytes > room:
            pieces = cut(packet.data, room, packet.identification)  # as any router might
        self.counts["to_mux"] += len(pieces)
        parts = (read_ip(piece) for piece in pieces)
        return [Sent(BY_ROUTE, to_mux(part, source, mux)) for part in parts if part is not None]

    def _forward(self, packet: Packet, backend: int, now: float) -> list[Sent]:
        """To the backend in one outer packet, or in fragments of one, or an error for the client."""
        room = self.forwarder.room(backend)
        if packet.length_bytes > room:
            may_be_cut = not packet.dont_fragment if packet.version == 4 else packet.length_bytes <= 1280
            if not may_be_cut:
                error = errors.too_big(packet, room, packet.destination)
                return self._answer(packet, error, "too_big_answered", now)
            if self.place.settings.too_big == "drop":
                return self._dropped("too_big_dropped")
            self.counts["too_big_fragmented"] += 1
        return self._tunnelled(packet, backend)

    def _about_outer(self, packet: Packet, now: float) -> list[Sent]:
        """A router between us and a host had trouble with an outer packet."""
        said = read_outer_error(packet)
        if said is None:
            return []
        if said.mtu_bytes is not None:
            self.mtus.learn(said.host, said.mtu_bytes, now)
            self.counts["path_mtu_learned"] += 1
        inner = said.inner
        if inner is None or inner.destination not in self.place.vips:
            return []
        vip = inner.destination
        if said.mtu_bytes is None:
            code = 1 if inner.version == 4 else 3  # host, or address, unreachable
            error = errors.unreachable(inner, vip, code)
        else:
            flow = _flow(inner)
            backend = None if flow is None else self.forwarder.owner(flow)
            room = said.mtu_bytes - OUTER_BYTES[said.host.version] if backend is None else self.forwarder.room(backend)
            error = errors.too_big(inner, room, vip)
        if error is None:
            return []
        if not self._messages.take(now):
            return self._dropped("over_icmp_per_s")
        self.counts["outer_error_relayed"] += 1
        return [Sent(BY_ROUTE, error)]

    def _answer(self, packet: Packet, answer: bytes | None, what: str, now: float) -> list[Sent]:
        """An answer of our own goes back by the link that its cause came by."""
        if answer is None:
            return self._dropped(f"{what}_not_allowed")
        if not self._messages.take(now):
            return self._dropped("over_icmp_per_s")
        self.counts[what] += 1
        return [Sent(0, turned(packet.link) + answer)]

    def _tunnelled(self, packet: Packet, backend: int) -> list[Sent]:
        frames = self.forwarder.tunnel(packet.data, backend)
        if not frames:
            return self._dropped("not_tunnelled")
        return [Sent(interface, frame) for interface, frame in frames]

    def _dropped(self, why: str) -> list[Sent]:
        self.counts[why] += 1
        return []


def _flow(packet: Packet) -> Flow | None:
    """Of a client's packet, where its ports are there."""
    if packet.ports is None:
        return None
    return Flow(packet.protocol, packet.source, packet.ports[0], packet.destination, packet.ports[1])


def vips_of(services: Iterable[tuple[Address, str, int]]) -> dict[Address, Flow]:
    """What Place wants, from (VIP, protocol, port) of each service."""
    return {vip: Flow(TCP if protocol == "tcp" else UDP, vip, 0, vip, port) for vip, protocol, port in services}
