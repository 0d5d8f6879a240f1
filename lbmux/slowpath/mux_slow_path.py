"""The mux's slow path: handles the frames that the data path punted. ``MuxSlowPath.handle`` is its entry point.

    verdict, frame -> classify -> ping | ICMP error | fragment | too big | TTL exceeded | returned by a host
                                  | without a backend
                   -> frames to send

Everything is bounded: packets processed per second, ICMP messages sent per second, and memory. Frames that are neither
for a VIP nor for the mux itself are left to the kernel's stack.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from lbmux.addresses import Address
from lbmux.config.slowpath_models import SlowPath
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath import icmp_errors
from lbmux.slowpath.candidates import host_key
from lbmux.slowpath.echo import echo_reply, is_echo_request
from lbmux.slowpath.fragment_out import fragment_packet
from lbmux.slowpath.fragment_owner import is_from_mux, owner_of, sharing, to_mux
from lbmux.slowpath.fragments import Fragments
from lbmux.slowpath.icmp_quotes import flow_of
from lbmux.slowpath.path_mtu import OuterError, PathMtus, read_outer_error
from lbmux.slowpath.resets import opens_connection, reset
from lbmux.slowpath.second_chance import SearchStage, next_candidate
from lbmux.slowpath.slow_path_flow import Candidates, Flow, Forwarder
from lbmux.slowpath.token_bucket import Bucket, CpuBudget
from lbmux.slowpath.tunnels import IANA_PORTS, Carrier, Ports, carrier, inside
from lbmux.wire.header_layouts import ICMP_ECHO, IP_BYTES
from lbmux.wire.numbers import IP_IN_IP, TCP_PROTOCOL, UDP_PROTOCOL
from lbmux.wire.packet import Packet, read_frame, read_ip, reversed_link, source_bytes

PUNTED = (Verdict.FRAGMENT, Verdict.ICMP, Verdict.TOO_BIG, Verdict.TTL, Verdict.PROTOCOL, Verdict.NO_BACKEND)
"""The verdicts of punted frames; PROTOCOL because of fragments from other muxes and packets that hosts return."""
PORT_UNREACHABLE = {4: 3, 6: 4}
"""ICMP codes by IP version (RFC 792, RFC 4443)."""
BY_ROUTE = -1
LINK_BYTES = 1500
"""The assumed MTU between muxes, whose links are not in the tables."""


class Sent(NamedTuple):
    """A frame to send by an interface (0: the receiving one), or a packet for the kernel to route (BY_ROUTE)."""

    interface: int
    data: bytes


@dataclass(frozen=True)
class MuxContext:
    """The configuration of the mux's slow path."""

    settings: SlowPath
    vips: Mapping[Address, Flow]
    """Each VIP with a flow without a client: protocol and port of the service that gets forwarded pings."""
    muxes: frozenset[Address] = frozenset()
    hosts: Mapping[Address, Collection[Carrier]] = field(default_factory=dict)
    """The kinds of outer packets to each host."""
    ports: Ports = IANA_PORTS


@dataclass
class MuxSlowPath:
    """``is_up``: whether a VIP has a backend that takes new flows; ``own``: the mux's outer source addresses;
    ``cpu_s``: a clock of the slow path's CPU time, in seconds."""

    forwarder: Forwarder
    own: frozenset[Address]
    context: MuxContext
    is_up: Callable[[Address], bool]
    mtus: PathMtus = field(default_factory=PathMtus)
    counts: Counter[str] = field(default_factory=Counter)
    cpu_s: Callable[[], float] = time.thread_time

    def __post_init__(self) -> None:
        self._fragments = Fragments(self.context.settings.fragments, self.forwarder.enter, self.counts)
        self.configure(self.context)

    def configure(self, context: MuxContext) -> None:
        """Apply a configuration. Datagrams in transit keep their backends."""
        self.context, settings = context, context.settings
        self._work = Bucket(settings.packets_per_s)
        self._messages = Bucket(settings.icmp_per_s)
        self._rejects = Bucket(settings.rejects_per_s)
        self._fragments.limits = settings.fragments
        self.sharing_muxes = sharing(context.muxes, self.own)
        self._returns = CpuBudget(settings.second_chance_cpu)
        self._returners = {host.packed for host in context.hosts if host not in context.muxes}
        self.mtus.keep(context.hosts)

    def handle(self, verdict: Verdict, frame: bytes, target: int, now: float) -> list[Sent]:
        """Handle one frame. Return what to send. ``target`` is the backend that the data path chose, or -1."""
        if verdict == Verdict.NO_BACKEND:
            return self._reject(frame, now)
        if verdict == Verdict.PROTOCOL and source_bytes(frame) in self._returners and not self._returns.is_left(now):
            return self._dropped("returned_over_cpu")  # before anything that takes time
        packet = read_frame(frame)
        if packet is None or not (packet.destination in self.context.vips or packet.destination in self.own):
            return []
        if not self._work.take(now):
            return self._dropped("over_packets_per_s")
        if packet.destination in self.own:
            return self._to_us(packet, now)
        if packet.is_fragment and verdict not in (Verdict.TOO_BIG, Verdict.TTL):
            return self._fragment(packet, now, from_mux=False)
        if verdict == Verdict.TTL or (packet.hops <= 1 and not is_echo_request(packet)):
            return self._answer(packet, icmp_errors.time_exceeded(packet, packet.destination), "time_exceeded", now)
        if verdict == Verdict.TOO_BIG and target >= 0:
            return self._forward(packet, target, now)
        return self._icmp(packet, now) if packet.is_icmp else []

    def _reject(self, frame: bytes, now: float) -> list[Sent]:
        """Reject a packet for which there is no backend, as a host without a listener would (RFC 1122, 4443).

        Mid-connection packets are dropped: their connection continues if its backend comes back.
        """
        if not self._rejects.has(now):
            return self._dropped("over_rejects_per_s")
        packet = read_frame(frame)
        flow = None if packet is None else _flow(packet)
        if packet is None or flow is None or not self.forwarder.rejects(flow):
            return []
        if packet.protocol == TCP_PROTOCOL and not opens_connection(packet):
            return self._dropped("no_backend_in_mid_connection")
        if packet.protocol == TCP_PROTOCOL:
            what, answer = "rejected_reset", reset(packet) if icmp_errors.may_have_error(packet) else None
        else:
            code = PORT_UNREACHABLE[packet.version]
            what, answer = "rejected_unreachable", icmp_errors.unreachable(packet, packet.destination, code)
        return self._answer(packet, answer, what, now, self._rejects)

    def _to_us(self, packet: Packet, now: float) -> list[Sent]:
        is_from_host = packet.source in self.context.hosts
        if is_from_mux(packet, self.context.muxes):
            inner = read_ip(packet.payload, link=packet.link)
            if inner is not None and inner.is_fragment and inner.destination in self.context.vips:
                self.counts["from_mux"] += 1
                return self._fragment(inner, now, from_mux=True)
            if not is_from_host:
                return self._dropped("from_mux_unusable")
        if packet.protocol in IP_IN_IP.values() and not packet.is_fragment and is_from_host:
            return self._returned(packet, now)
        return self._outer_error(packet, now) if icmp_errors.is_error(packet) else []

    def _returned(self, packet: Packet, now: float) -> list[Sent]:
        """Handle a packet that a host returned, because it does not have the connection. The work has a CPU budget."""
        if not self._returns.is_left(now):
            return self._dropped("returned_over_cpu")
        begun_s = self.cpu_s()
        sent = self._second_chance(packet)
        self._returns.spend(self.cpu_s() - begun_s)
        return sent

    def spend(self, seconds: float) -> None:
        """Charge CPU time to the budget of returned packets: that of sending one to the next candidate."""
        self._returns.spend(seconds)

    def _second_chance(self, outer: Packet) -> list[Sent]:
        """Send the packet to the next candidate. If no candidate is left, send the client a reset."""
        inner = read_ip(outer.payload, link=outer.link)
        flow = None if inner is None else flow_of(inner) if inner.is_icmp else _flow(inner)
        if inner is None or flow is None or flow.vip not in self.context.vips:
            return self._dropped("returned_unusable")
        if inner.hops <= 1:
            return self._dropped("returned_ttl")
        found = self.forwarder.candidates(flow, self.context.settings.second_chance_max_hosts)
        refused = self.forwarder.at_host([*found.likely, *found.rest], outer.source)
        stage = SearchStage.of(outer.hops)
        if (
            inner.is_icmp
            and stage == SearchStage.FIRST
            and len(found.likely) > 1
            and self.forwarder.entry(flow) is None
        ):
            return self._dropped("returned_copy")  # see _icmp: the other copy is searched for
        key = host_key(flow, outer.source) if stage == SearchStage.REST else 0
        chosen = next_candidate(found, stage, refused, key)
        if chosen is None:
            return self._no_candidate_left(inner, flow, outer.source)
        backend, stage = chosen
        self.counts["returned_forwarded"] += 1
        if not inner.is_icmp:
            self._assign(flow, backend, found, outer.source)
        return self._tunnelled(inner, backend, stage)

    def _assign(self, flow: Flow, backend: int, found: Candidates, refused_by: Address) -> None:
        """Direct later packets to the backend that is tried now.

        Each of a client's packets makes its own search. The flow's entry follows the most advanced search. Searches
        behind it do not set it back, or they could prevent each other from finding the connection.
        """
        entry = self.forwarder.entry(flow)
        if (
            entry is None
            or self.forwarder.at_host([entry], refused_by)
            or found.position(entry) < found.position(backend)
        ):
            self.forwarder.assign(flow, backend)

    def _no_candidate_left(self, inner: Packet, flow: Flow, last: Address) -> list[Sent]:
        """Send a reset: the last candidate does not have the connection either."""
        answer = reset(inner)
        if answer is None:
            return self._dropped("returned_not_answered")
        entry = self.forwarder.entry(flow)
        if entry is not None and self.forwarder.at_host([entry], last):
            self.forwarder.forget(flow)
        self.counts["returned_reset"] += 1
        return [Sent(BY_ROUTE, answer)]

    def _icmp(self, packet: Packet, now: float) -> list[Sent]:
        if is_echo_request(packet):
            return self._echo(packet, now)
        flow = flow_of(packet)
        if flow is None:
            return self._dropped("icmp_unusable")
        owners = self.forwarder.owners(flow)
        if not owners:
            return self._dropped("icmp_no_flow")
        self.counts["icmp_forwarded"] += 1
        first, *others = owners
        stage = SearchStage.LIKELY_ASKED if others else SearchStage.FIRST  # only the first copy starts a search
        sent = self._tunnelled(packet, first, stage)
        return sent + [one for backend in others for one in self._tunnelled(packet, backend)]

    def _echo(self, packet: Packet, now: float) -> list[Sent]:
        if self.context.settings.echo == "drop" or not self.is_up(packet.destination):
            return self._dropped("echo_dropped")
        if self.context.settings.echo == "answer":
            return self._answer(packet, echo_reply(packet), "echo_answered", now)
        asked = self.context.vips[packet.destination]
        number = ICMP_ECHO.unpack(packet.payload).identifier
        backend = self.forwarder.owner(asked._replace(client=packet.source, client_port=number))
        if backend is None or packet.hops <= 1:
            return self._dropped("echo_dropped")
        self.counts["echo_forwarded"] += 1
        return self._tunnelled(packet, backend)

    def _fragment(self, packet: Packet, now: float, from_mux: bool) -> list[Sent]:
        if self.sharing_muxes and not from_mux:
            owner = owner_of(packet, self.sharing_muxes)
            if owner not in self.own:
                return self._sent_to(owner, packet)
        if packet.hops <= 1:
            return self._answer(packet, icmp_errors.time_exceeded(packet, packet.destination), "time_exceeded", now)
        return [
            sent for one, backend in self._fragments.arrive(packet, now) for sent in self._forward(one, backend, now)
        ]

    def _sent_to(self, mux: Address, packet: Packet) -> list[Sent]:
        source = next(address for address in self.own if address.version == mux.version)
        room = LINK_BYTES - IP_BYTES[mux.version]
        pieces = [packet.data]
        if packet.version == 4 and packet.length_bytes > room:
            pieces = fragment_packet(packet.data, room, packet.identification)  # routers may do so
        self.counts["to_mux"] += len(pieces)
        parts = (read_ip(piece) for piece in pieces)
        return [Sent(BY_ROUTE, to_mux(part, source, mux)) for part in parts if part is not None]

    def _forward(self, packet: Packet, backend: int, now: float) -> list[Sent]:
        """Send the packet to the backend in one outer packet or its fragments, or send the client an error."""
        room = self.forwarder.inner_mtu(backend)
        if packet.length_bytes > room:
            may_be_cut = not packet.dont_fragment if packet.version == 4 else packet.length_bytes <= 1280
            if not may_be_cut:
                error = icmp_errors.too_big(packet, room, packet.destination)
                return self._answer(packet, error, "too_big_answered", now)
            if self.context.settings.too_big == "drop":
                return self._dropped("too_big_dropped")
            self.counts["too_big_fragmented"] += 1
        return self._tunnelled(packet, backend)

    def _outer_error(self, packet: Packet, now: float) -> list[Sent]:
        """Handle an ICMP error about an outer packet that we sent to a host, if it is credible."""
        said = read_outer_error(packet, self.context.hosts)
        if said is None or carrier(said.quote) not in self.context.hosts[said.host]:
            return self._dropped("outer_error_ignored")
        inner = inside(said.quote, *self.context.ports, is_quoted=True)
        flow = None if inner is None else _flow(inner)
        backend, is_known = (None, False) if flow is None else self._backend_at(flow, said.host)
        if inner is not None and (inner.destination not in self.context.vips or (flow and backend is None)):
            return self._dropped("outer_error_ignored")
        if said.mtu_bytes is not None:
            mtu_bytes = said.least(0 if is_known else self.context.settings.path_mtu_floor)
            if mtu_bytes is None:
                return self._dropped("outer_error_ignored")
            self.mtus.learn(said.host, mtu_bytes, now)
            self.counts["path_mtu_learned"] += 1
        return [] if inner is None or backend is None else self._relay_error(said, inner, backend, now)

    def _backend_at(self, flow: Flow, host: Address) -> tuple[int | None, bool]:
        """Return (backend, whether a flow entry names it): the backend at a host that the flow has or recently had."""
        entry = self.forwarder.entry(flow)
        known = [] if entry is None else self.forwarder.at_host([entry], host)
        found = known or self.forwarder.at_host(self.forwarder.likely(flow), host)
        return (found[0] if found else None), bool(known)

    def _relay_error(self, said: OuterError, inner: Packet, backend: int, now: float) -> list[Sent]:
        """Relay the error to the client."""
        vip = inner.destination
        if said.mtu_bytes is None:
            code = 1 if inner.version == 4 else 3  # host, or address, unreachable
            error = icmp_errors.unreachable(inner, vip, code)
        else:
            error = icmp_errors.too_big(inner, self.forwarder.inner_mtu(backend), vip)
        if error is None:
            return []
        if not self._messages.take(now):
            return self._dropped("over_icmp_per_s")
        self.counts["outer_error_relayed"] += 1
        return [Sent(BY_ROUTE, error)]

    def _answer(
        self, packet: Packet, answer: bytes | None, what: str, now: float, rate: Bucket | None = None
    ) -> list[Sent]:
        """Send our own answer back through the link on which its cause arrived."""
        if answer is None:
            return self._dropped(f"{what}_not_allowed")
        if not (rate or self._messages).take(now):
            return self._dropped("over_icmp_per_s" if rate is None else "over_rejects_per_s")
        self.counts[what] += 1
        return [Sent(0, reversed_link(packet.link) + answer)]

    def _tunnelled(self, packet: Packet, backend: int, stage: int = SearchStage.FIRST) -> list[Sent]:
        frames = self.forwarder.tunnel(packet.data, backend, stage)
        if not frames:
            return self._dropped("not_tunnelled")
        return [Sent(interface, frame) for interface, frame in frames]

    def _dropped(self, why: str) -> list[Sent]:
        self.counts[why] += 1
        return []


def _flow(packet: Packet) -> Flow | None:
    """Return the flow of a client's packet, or None if it has no ports."""
    if packet.ports is None:
        return None
    return Flow(packet.protocol, packet.source, packet.ports[0], packet.destination, packet.ports[1])


def vips_of(services: Iterable[tuple[Address, str, int]]) -> dict[Address, Flow]:
    """Return MuxContext.vips, from (VIP, protocol, port) of each service."""
    return {
        vip: Flow(TCP_PROTOCOL if protocol == "tcp" else UDP_PROTOCOL, vip, 0, vip, port)
        for vip, protocol, port in services
    }
