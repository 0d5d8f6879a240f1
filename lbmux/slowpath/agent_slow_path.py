"""The host agent's slow path: handles the frames that the data path punted.

In:  tunnelled ICMP error -> does the host have the connection? -> translate its quote -> local stack, or to the mux;
     fragments of the outer or the inner packet -> reassemble -> through the data path again;
     unknown connection -> does the host have a socket for it? -> through the data path, or back to the mux;
     or an entry of another VIP? -> back to the mux.
Out: fragments of a reply -> reassemble -> through the data path, which translates it -> fragment again;
     reply without a flow entry -> does the host have a socket for it? -> enter it again, through the data path;
     ICMP error about a client's packet -> translate its quote -> the client.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from lbmux.addresses import Address
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.icmp_errors import is_error
from lbmux.slowpath.icmp_quotes import flow_of, flow_of_own, translate_error, translate_own_error
from lbmux.slowpath.reassembly import LARGEST_BYTES, Reassembly
from lbmux.slowpath.resets import opens_connection
from lbmux.slowpath.second_chance import returned_packet
from lbmux.slowpath.slow_path_flow import Flow
from lbmux.slowpath.source_budget import US_PER_S, SourceBudget, cpu_budget
from lbmux.slowpath.tunnels import inside, source_inside
from lbmux.wire.header_layouts import IP_BYTES
from lbmux.wire.numbers import IP_IN_IP
from lbmux.wire.packet import Packet, ip_packet, read_frame

INBOUND = (Verdict.ICMP, Verdict.FRAGMENT, Verdict.NOT_TUNNELLED, Verdict.UNKNOWN_CONNECTION)
"""The verdicts of punted frames; NOT_TUNNELLED because of fragments of outer packets."""
OUTBOUND = (Verdict.REPLY_FRAGMENT, Verdict.UNKNOWN_REPLY, Verdict.REPLY_ICMP)


class Target(NamedTuple):
    """The local backend of a VIP's service. A port of 0 means that the port does not change.

    ``checks_sockets``: whether the host's sockets decide which connections it has.
    """

    dip: Address
    port: int
    checks_sockets: bool = False


class Adopted(Enum):
    """The outcome of checking the host's sockets for a reply without a flow entry. The value is its counter."""

    KNOWN = "reply_adopted"  # the connection has been entered again
    AMBIGUOUS = "reply_ambiguous"  # several VIPs map to its port: dropped until a packet from the client names one
    GONE = "reply_without_connection"  # no socket has this connection
    UNCHECKED = "reply_unchecked"  # its sockets are in another namespace: it leaves unchanged


@dataclass(frozen=True)
class AgentContext:
    """The agent's configuration and its access to sockets and flow table, for the slow path.

    ``target``: the local backend for a flow's VIP and port, or None; the VIP itself if nothing is translated.
    ``connected``: whether this host has a connection; its VIP is the address that the server sees. ``adopt``: enter
    such a connection again. ``forget``: delete its entries. ``vip_of``: the VIP and port of a connection, or None if
    it has no entry.
    """

    own: Collection[Address]
    muxes: Collection[Address]
    target: Callable[[Flow], Target | None]
    gue_port: int
    geneve_port: int
    packets_per_s: int
    connected: Callable[[Flow], bool]
    adopt: Callable[[Flow], Adopted]
    forget: Callable[[Flow], None]
    vip_of: Callable[[Flow], tuple[Address, int] | None]
    socket_check_cpu: float = 0.2
    """The CPU time for packets of unknown connections and for ICMP, as a share of one core."""


class Inbound(NamedTuple):
    """Packets for the local stack, whole frames for another pass through the data path, packets back to a mux.

    ``known_local``: the data path must treat the frames' connection as this host's.
    """

    packets: list[bytes]
    frames: list[bytes]
    back: Sequence[bytes] = ()
    known_local: bool = False


NOTHING = Inbound([], [])


@dataclass
class AgentSlowPath:
    """Decides about punted frames. ``cpu_s`` is a clock of the slow path's CPU time, in seconds."""

    context: AgentContext
    counts: Counter[str] = field(default_factory=Counter)
    cpu_s: Callable[[], float] = time.thread_time

    def __post_init__(self) -> None:
        self._tunnelled, self._replies = Reassembly(self.counts), Reassembly(self.counts)
        self._client = b""
        """The source of the last packet whose CPU time has a budget."""
        self.configure(self.context)

    def configure(self, context: AgentContext) -> None:
        """Apply a configuration. Incomplete reassemblies stay."""
        self.context = context
        self._work = SourceBudget(context.packets_per_s, "over_packets_per_s", self.counts)
        self._check_budget = cpu_budget(context.socket_check_cpu, "unknown_over_cpu", self.counts)

    def inbound(self, verdict: Verdict, frame: bytes, now: float) -> Inbound:
        """Handle a frame that the data path punted on the way in. ``now`` is in seconds of a monotonic clock.

        Unknown connections and ICMP have a CPU budget, so that a flood of them, which anyone can send, leaves time for
        probes and known connections. A mux forwards an ICMP error to the host that may have the flow. Clients share the
        budget by prefix.
        """
        if verdict not in (Verdict.UNKNOWN_CONNECTION, Verdict.ICMP):
            return self._handle(verdict, frame, now)
        self._client = self._source(frame)
        if not self._check_budget.has(self._client, now):
            return NOTHING  # before anything that takes time
        begun_s = self.cpu_s()
        inbound = self._handle(verdict, frame, now)
        self.spend(self.cpu_s() - begun_s)
        return inbound

    def _source(self, frame: bytes) -> bytes:
        return source_inside(frame, self.context.gue_port, self.context.geneve_port)

    def _handle(self, verdict: Verdict, frame: bytes, now: float) -> Inbound:
        outer = read_frame(frame)
        if verdict == Verdict.UNKNOWN_CONNECTION and outer is not None:
            return self._check_sockets(outer, frame, now)
        if outer is None or outer.source not in self.context.muxes or outer.destination not in self.context.own:
            return NOTHING
        if not self._work.take(self._source(frame), now):
            return NOTHING
        if outer.is_fragment:
            whole = self._tunnelled.add(outer, now)
            return Inbound([], [outer.link + whole] if whole else [])
        packet = inside(outer, self.context.gue_port, self.context.geneve_port)
        if packet is None:
            return self._dropped("tunnel_unusable")
        if packet.is_fragment:
            return self._fragment(outer, packet, now)
        return self._icmp(outer, packet, now) if verdict == Verdict.ICMP else NOTHING

    def without_entry(self, frame: bytes, now: float) -> Adopted | None:
        """Decide about a TCP reply without a flow entry. None: drop it, because the rate limit is exceeded."""
        packet = read_frame(frame)
        if packet is None or packet.ports is None or not self._work.take(packet.destination.packed, now):
            return None
        adopted = self.context.adopt(
            Flow(packet.protocol, packet.destination, packet.ports[1], packet.source, packet.ports[0])
        )
        self.counts[adopted.value] += 1
        return adopted

    def own_error(self, frame: bytes, now: float) -> bytes | None:
        """Return an ICMP error of this host as a frame for the client; unchanged if it quotes no VIP's packet."""
        error = read_frame(frame)
        if error is None or not self._work.take(error.destination.packed, now):
            return None
        flow = flow_of_own(error)
        vip = self.context.vip_of(flow) if flow is not None else None
        translated = translate_own_error(error, *vip) if vip is not None else None
        if translated is None:
            return frame
        self.counts["icmp_translated"] += 1
        return error.link + translated

    def outbound(self, frame: bytes, now: float) -> bytes | None:
        """Add a reply's fragment. Return the whole frame if the fragment completes it."""
        packet = read_frame(frame)
        whole = None if packet is None or not packet.is_fragment else self._replies.add(packet, now)
        return None if packet is None or whole is None else packet.link + whole

    def _fragment(self, outer: Packet, packet: Packet, now: float) -> Inbound:
        whole = self._tunnelled.add(packet, now)
        if whole is None:
            return NOTHING
        if len(whole) + IP_BYTES[outer.version] > LARGEST_BYTES:
            return self._dropped("reassembly_malformed")
        again = ip_packet(
            outer.source, outer.destination, IP_IN_IP[packet.version], whole, traffic_class=outer.traffic_class,
            hops=outer.hops,
        )  # fmt: skip
        return Inbound([], [outer.link + again])

    def of_another_vip(self, frame: bytes) -> Inbound:
        """Handle a packet whose client address and port have a connection here by another VIP.

        It is forged, or its connection is at another host: it returns to the mux.
        """
        self._client = self._source(frame)
        begun_s, outer = self.cpu_s(), read_frame(frame)
        packet = None if outer is None else inside(outer, self.context.gue_port, self.context.geneve_port)
        inbound = NOTHING if outer is None or packet is None else self._of_another_vip(outer, packet)
        self.spend(self.cpu_s() - begun_s)
        return inbound

    def _of_another_vip(self, outer: Packet, packet: Packet) -> Inbound:
        self.counts["unknown_of_another_vip"] += 1
        return Inbound([], [], [returned_packet(outer, packet)]) if outer.source in self.context.muxes else NOTHING

    def spend(self, seconds: float) -> None:
        """Charge the CPU time of sending the last packet back to the budget of unknown connections."""
        self._check_budget.spend(self._client, seconds * US_PER_S)

    def _check_sockets(self, outer: Packet, frame: bytes, now: float) -> Inbound:
        """Handle a packet of a TCP connection that has no entry here, or whose entry is another VIP's.

        If the host does not have the connection, the packet returns to the mux in IP in IP (second chance). Packets of
        a mux with an unknown address are delivered without a check.
        """
        mine = Inbound([], [frame], known_local=True)
        packet = inside(outer, self.context.gue_port, self.context.geneve_port)
        if packet is None or packet.ports is None:
            return mine
        if not self._work.take(packet.source.packed, now):
            return NOTHING  # the stack would reset a connection that another host has
        flow = Flow(packet.protocol, packet.source, packet.ports[0], packet.destination, packet.ports[1])
        target = self.context.target(flow)
        if target is None:
            return mine
        at_server = _at_server(flow, target)
        if opens_connection(packet):  # punted only because its entry is another VIP's
            if self.context.connected(at_server):
                return self._of_another_vip(outer, packet)
            self.context.forget(at_server)
            self.counts["unknown_reopened"] += 1
            return mine
        if outer.source not in self.context.muxes:
            return mine
        if not self.context.connected(at_server):
            self.counts["unknown_returned"] += 1
            return Inbound([], [], [returned_packet(outer, packet)])
        self.counts["unknown_connected"] += 1
        return mine

    def _icmp(self, outer: Packet, packet: Packet, now: float) -> Inbound:
        """Deliver an ICMP error to the server that has the connection."""
        if not is_error(packet):
            self.counts["icmp_delivered"] += 1
            return Inbound([packet.data], [])  # a ping, which a host with the VIP answers
        flow = flow_of(packet)
        target = None if flow is None else self.context.target(flow)
        if flow is None or target is None:
            return self._dropped("icmp_no_flow")
        if target.checks_sockets and not self.context.connected(_at_server(flow, target)):
            self.counts["icmp_returned"] += 1
            return Inbound([], [], [returned_packet(outer, packet)])
        error = packet.data if target.dip == flow.vip else translate_error(packet, target.dip, target.port)
        if error is None:
            return self._dropped("icmp_unusable")
        self.counts["icmp_delivered"] += 1
        return Inbound([error], [])

    def _dropped(self, why: str) -> Inbound:
        self.counts[why] += 1
        return NOTHING


def _at_server(flow: Flow, target: Target) -> Flow:
    """Return the flow as the server's socket sees it: in a hairpin (lbmux.datapath.agent) the VIP is the client."""
    client = flow.vip if flow.client == target.dip else flow.client
    return flow._replace(client=client, vip=target.dip, vip_port=target.port or flow.vip_port)
