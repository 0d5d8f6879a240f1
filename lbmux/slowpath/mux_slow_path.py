"""The mux's slow path: handles the frames that the data path punted. ``MuxSlowPath.handle`` is its entry point.

    verdict, frame -> classify -> ping | ICMP error | fragment | too big | TTL exceeded | returned by a host
                                  | without a backend
                   -> frames to send

Everything is bounded: CPU time, packets processed per second, ICMP messages sent per second, and memory. Clients share
the budgets fairly, by prefix (lbmux.slowpath.source_budget). Frames that are neither for a VIP nor for the mux itself
are left to the kernel's stack.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from lbmux.addresses import Address
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath import icmp_errors
from lbmux.slowpath.echo import echo_reply, is_echo_request
from lbmux.slowpath.fragment_out import fragment_packet
from lbmux.slowpath.fragment_owner import is_from_mux, owner_of, sharing, to_mux
from lbmux.slowpath.fragments import Fragments
from lbmux.slowpath.icmp_quotes import flow_of
from lbmux.slowpath.mux_context import MuxContext
from lbmux.slowpath.mux_output import BY_ROUTE, MuxOutput, Sent
from lbmux.slowpath.outer_errors import OuterErrors
from lbmux.slowpath.path_mtu import PathMtus
from lbmux.slowpath.resets import opens_connection, reset
from lbmux.slowpath.returned_packets import ReturnedPackets
from lbmux.slowpath.second_chance import SearchStage
from lbmux.slowpath.slow_path_flow import Forwarder, client_flow
from lbmux.slowpath.source_budget import US_PER_S, SourceBudget, cpu_budget
from lbmux.slowpath.tunnels import source_inside
from lbmux.wire.header_layouts import ICMP_ECHO, IP_BYTES
from lbmux.wire.numbers import IP_IN_IP, TCP_PROTOCOL
from lbmux.wire.packet import Packet, read_frame, read_ip, source_bytes

PUNTED = (Verdict.FRAGMENT, Verdict.ICMP, Verdict.TOO_BIG, Verdict.TTL, Verdict.PROTOCOL, Verdict.NO_BACKEND)
"""The verdicts of punted frames; PROTOCOL because of fragments from other muxes and packets that hosts return."""
PORT_UNREACHABLE = {4: 3, 6: 4}
"""ICMP codes by IP version (RFC 792, RFC 4443)."""
LINK_BYTES = 1500
"""The assumed MTU between muxes, whose links are not in the tables."""


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
    is_behind: Callable[[], bool] = lambda: False
    """Whether frames that need no slow path wait for this one."""

    def __post_init__(self) -> None:
        settings = self.context.settings
        self._payer: Callable[[float], None] = _free
        self._fragments = Fragments(settings.fragments, self.forwarder.enter, self.counts)
        self._output = MuxOutput(self.forwarder, self.counts, self._budget("icmp_per_s"))
        self._returned = ReturnedPackets(self._output, self.context, lambda: self.cpu_s())
        self._outer_errors = OuterErrors(self._output, self.context, self.mtus)
        self.configure(self.context)

    def configure(self, context: MuxContext) -> None:
        """Apply a configuration. Datagrams in transit keep their backends."""
        self.context, settings = context, context.settings
        self._work, self._rejects = self._budget("packets_per_s"), self._budget("rejects_per_s")
        self._cpu = cpu_budget(settings.cpu, "over_cpu", self.counts)
        self._relays = {address.packed for address in (*context.hosts, *context.muxes)}
        self._output.messages = self._budget("icmp_per_s")
        self._fragments.limits = settings.fragments
        self.sharing_muxes = sharing(context.muxes, self.own)
        self._returned.configure(context)
        self._outer_errors.configure(context)

    def handle(self, verdict: Verdict, frame: bytes, target: int, now: float) -> list[Sent]:
        """Handle one frame. Return what to send. ``target`` is the backend that the data path chose, or -1.

        ``now`` is in seconds of a monotonic clock.
        """
        if verdict == Verdict.NO_BACKEND:
            self._payer = _free
            return self._reject(frame, now)
        client = self._client(frame)
        if verdict == Verdict.PROTOCOL and self._returned.is_returned(frame):
            self._payer = self._returned.spend
            return [] if self._returned.is_over_budget(client, now) else self._packet(verdict, frame, target, now)
        if self.is_behind():
            return self._output.drop("loop_behind")
        if not self._cpu.has(client, now):  # before anything that takes time
            return []
        self._payer, begun_s = partial(self._spend, client), self.cpu_s()
        sent = self._packet(verdict, frame, target, now)
        self.spend(self.cpu_s() - begun_s)
        return sent

    def spend(self, seconds: float) -> None:
        """Charge CPU time to the budget, and the client, of the last packet; for rejects it is free."""
        self._payer(seconds)

    def _spend(self, client: bytes, seconds: float) -> None:
        self._cpu.spend(client, seconds * US_PER_S)

    def _packet(self, verdict: Verdict, frame: bytes, target: int, now: float) -> list[Sent]:
        packet = read_frame(frame)
        if packet is None or not (packet.destination in self.context.vips or packet.destination in self.own):
            return []
        if not self._work.take(self._client(frame), now):
            return []
        if packet.destination in self.own:
            return self._to_us(packet, now)
        if packet.is_fragment and verdict not in (Verdict.TOO_BIG, Verdict.TTL):
            return self._fragment(packet, now, from_mux=False)
        if verdict == Verdict.TTL or (packet.hops <= 1 and not is_echo_request(packet)):
            return self._time_exceeded(packet, now)
        if verdict == Verdict.TOO_BIG and target >= 0:
            return self._forward(packet, target, now)
        return self._icmp(packet, now) if packet.is_icmp else []

    def _budget(self, setting: str) -> SourceBudget:
        return SourceBudget(getattr(self.context.settings, setting), f"over_{setting}", self.counts)

    def _client(self, frame: bytes) -> bytes:
        """Return the address of the client that caused a frame, which hosts and other muxes tunnel.

        The look is cheap. Frames that are tagged or not IP have no address, and share a part of each budget.
        """
        source = source_bytes(frame)
        return source_inside(frame, *self.context.ports) if source in self._relays else source

    def _time_exceeded(self, packet: Packet, now: float) -> list[Sent]:
        error = icmp_errors.time_exceeded(packet, packet.destination)
        return self._output.answer(packet, error, "time_exceeded", now)

    def _reject(self, frame: bytes, now: float) -> list[Sent]:
        """Reject a packet for which there is no backend, as a host without a listener would (RFC 1122, 4443).

        Mid-connection packets are dropped: their connection continues if its backend comes back.
        """
        if not self._rejects.has(source_bytes(frame), now):
            return []
        packet = read_frame(frame)
        flow = None if packet is None else client_flow(packet)
        if packet is None or flow is None or not self.forwarder.rejects(flow):
            return []
        if packet.protocol == TCP_PROTOCOL and not opens_connection(packet):
            return self._output.drop("no_backend_in_mid_connection")
        if packet.protocol == TCP_PROTOCOL:
            what, answer = "rejected_reset", reset(packet) if icmp_errors.may_have_error(packet) else None
        else:
            code = PORT_UNREACHABLE[packet.version]
            what, answer = "rejected_unreachable", icmp_errors.unreachable(packet, packet.destination, code)
        return self._output.answer(packet, answer, what, now, self._rejects)

    def _to_us(self, packet: Packet, now: float) -> list[Sent]:
        is_from_host = packet.source in self.context.hosts
        if is_from_mux(packet, self.context.muxes):
            inner = read_ip(packet.payload, link=packet.link)
            if inner is not None and inner.is_fragment and inner.destination in self.context.vips:
                self.counts["from_mux"] += 1
                return self._fragment(inner, now, from_mux=True)
            if not is_from_host:
                return self._output.drop("from_mux_unusable")
        if packet.protocol in IP_IN_IP.values() and not packet.is_fragment and is_from_host:
            return self._returned.handle(packet, now)
        return self._outer_errors.handle(packet, now) if icmp_errors.is_error(packet) else []

    def _icmp(self, packet: Packet, now: float) -> list[Sent]:
        if is_echo_request(packet):
            return self._echo(packet, now)
        flow = flow_of(packet)
        if flow is None:
            return self._output.drop("icmp_unusable")
        owners = self.forwarder.owners(flow)
        if not owners:
            return self._output.drop("icmp_no_flow")
        self.counts["icmp_forwarded"] += 1
        first, *others = owners
        stage = SearchStage.LIKELY_ASKED if others else SearchStage.FIRST  # only the first copy starts a search
        sent = self._output.tunnel(packet, first, stage)
        return sent + [one for backend in others for one in self._output.tunnel(packet, backend)]

    def _echo(self, packet: Packet, now: float) -> list[Sent]:
        if self.context.settings.echo == "drop" or not self.is_up(packet.destination):
            return self._output.drop("echo_dropped")
        if self.context.settings.echo == "answer":
            return self._output.answer(packet, echo_reply(packet), "echo_answered", now)
        ping = self.context.vips[packet.destination]
        number = ICMP_ECHO.unpack(packet.payload).identifier
        backend = self.forwarder.owner(ping._replace(client=packet.source, client_port=number))
        if backend is None or packet.hops <= 1:
            return self._output.drop("echo_dropped")
        self.counts["echo_forwarded"] += 1
        return self._output.tunnel(packet, backend)

    def _fragment(self, packet: Packet, now: float, from_mux: bool) -> list[Sent]:
        if self.sharing_muxes and not from_mux:
            owner = owner_of(packet, self.sharing_muxes)
            if owner not in self.own:
                return self._sent_to(owner, packet)
        if packet.hops <= 1:
            return self._time_exceeded(packet, now)
        return [
            sent for one, backend in self._fragments.arrive(packet, now) for sent in self._forward(one, backend, now)
        ]

    def _sent_to(self, mux: Address, packet: Packet) -> list[Sent]:
        source = next(address for address in self.own if address.version == mux.version)
        inner_mtu = LINK_BYTES - IP_BYTES[mux.version]
        pieces = [packet.data]
        if packet.version == 4 and packet.length_bytes > inner_mtu:
            pieces = fragment_packet(packet.data, inner_mtu, packet.identification)  # routers may do so
        self.counts["to_mux"] += len(pieces)
        parts = (read_ip(piece) for piece in pieces)
        return [Sent(BY_ROUTE, to_mux(part, source, mux)) for part in parts if part is not None]

    def _forward(self, packet: Packet, backend: int, now: float) -> list[Sent]:
        """Send the packet to the backend in one outer packet or its fragments, or send the client an error."""
        inner_mtu = self.forwarder.inner_mtu(backend)
        if packet.length_bytes > inner_mtu:
            may_be_cut = not packet.dont_fragment if packet.version == 4 else packet.length_bytes <= 1280
            if not may_be_cut:
                error = icmp_errors.too_big(packet, inner_mtu, packet.destination)
                return self._output.answer(packet, error, "too_big_answered", now)
            if self.context.settings.too_big == "drop":
                return self._output.drop("too_big_dropped")
            self.counts["too_big_fragmented"] += 1
        return self._output.tunnel(packet, backend)


def _free(seconds: float) -> None:
    """Charge no budget."""
