"""What a host agent does with a frame that the data path punted.

In:  a tunnelled ICMP error -> has the host the connection? -> its quote translated -> the local stack, or to the mux;
     fragments, of the outer packet or of the inner one -> put together -> once more through the data path;
     a connection that is not known -> has the host a socket of it? -> through the data path, or back to the mux.
Out: fragments of a reply -> put together -> through the data path, which translates it -> cut again;
     a reply whose flow entry is gone -> has the host a socket of it? -> entered again, through the data path;
     an ICMP error about a client's packet -> its quote translated -> the client.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from lbmux.addresses import Address
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.fragment_owner import CARRIES, OUTER_BYTES
from lbmux.slowpath.icmp_errors import is_error
from lbmux.slowpath.icmp_quotes import flow_of, flow_of_own, translate_error, translate_own_error
from lbmux.slowpath.reassembly import LARGEST_BYTES, Reassembly
from lbmux.slowpath.second_chance import returned_packet
from lbmux.slowpath.slow_path_flow import Flow
from lbmux.slowpath.token_bucket import Bucket, CpuBudget
from lbmux.slowpath.tunnels import inside
from lbmux.wire.packet import Packet, ip_packet, read_frame

INBOUND = (Verdict.ICMP, Verdict.FRAGMENT, Verdict.NOT_TUNNELLED, Verdict.UNKNOWN)
"""Verdicts of frames that may be ours; NOT_TUNNELLED for fragments of outer packets."""
OUTBOUND = (Verdict.REPLY_FRAGMENT, Verdict.UNKNOWN_REPLY, Verdict.REPLY_ICMP)


SOCKET_CHECK_CPU = 0.5
"""CPU time that packets of unknown connections may take, as a share of one core."""


class Target(NamedTuple):
    """Where a VIP's service is at this host; the port is 0 where it stays as it is.

    ``asks``: whether the host's sockets tell which connections it has.
    """

    dip: Address
    port: int
    checks_sockets: bool = False


class Adopted(Enum):
    """What the host's sockets say of a reply without a flow entry: how it is counted."""

    KNOWN = "reply_adopted"  # the connection has an entry now
    HELD = "reply_held"  # several VIPs lead to its port: its sender repeats it until the client's packet names one
    GONE = "reply_without_connection"  # no socket sent it that could miss an answer
    UNSEEN = "reply_unseen"  # its sockets are in another namespace: it leaves as it is


@dataclass(frozen=True)
class AgentContext:
    """``target``: of a flow's VIP and port, or None; it is the VIP itself where nothing is translated.

    ``connected``: whether this host has the connection, whose VIP is the address that its server sees.  ``adopt``:
    enter such a connection again; ``vip_of``: by which VIP and port it comes, None where no entry says so.
    """

    own: Collection[Address]
    muxes: Collection[Address]
    target: Callable[[Flow], Target | None]
    gue_port: int
    geneve_port: int
    packets_per_s: int
    connected: Callable[[Flow], bool]
    adopt: Callable[[Flow], Adopted]
    vip_of: Callable[[Flow], tuple[Address, int] | None]


class Inbound(NamedTuple):
    """Packets for the local stack, whole frames for another way through the data path, packets back to a mux.

    ``known_local``: the frames' connection is to be taken for one of this host's.
    """

    packets: list[bytes]
    frames: list[bytes]
    back: Sequence[bytes] = ()
    known_local: bool = False


NOTHING = Inbound([], [])


@dataclass
class AgentSlowPath:
    context: AgentContext
    counts: Counter[str] = field(default_factory=Counter)
    cpu_s: Callable[[], float] = time.thread_time

    def __post_init__(self) -> None:
        self._check_budget = CpuBudget(SOCKET_CHECK_CPU)
        self._tunnelled, self._replies = Reassembly(self.counts), Reassembly(self.counts)
        self.configure(self.context)

    def configure(self, context: AgentContext) -> None:
        """Another configuration; what is half put together stays."""
        self.context = context
        self._work = Bucket(context.packets_per_s)

    def inbound(self, verdict: Verdict, frame: bytes, now: float) -> Inbound:
        outer = read_frame(frame)
        if verdict == Verdict.UNKNOWN and outer is not None:
            return self._unknown_connection(outer, frame, now)
        if outer is None or outer.source not in self.context.muxes or outer.destination not in self.context.own:
            return NOTHING
        if not self._work.take(now):
            return self._dropped("over_packets_per_s")
        if outer.is_fragment:
            whole = self._tunnelled.add(outer, now)
            return Inbound([], [outer.link + whole] if whole else [])
        packet = inside(outer, self.context.gue_port, self.context.geneve_port)
        if packet is None:
            return self._dropped("tunnel_unusable")
        if packet.is_fragment:
            return self._fragment(outer, packet, now)
        return self._icmp(outer, packet) if verdict == Verdict.ICMP else NOTHING

    def without_entry(self, frame: bytes, now: float) -> Adopted | None:
        """What to do with a TCP reply that no flow entry tells anything about; None: drop it, as time is short."""
        packet = read_frame(frame)
        if packet is None or packet.ports is None or not self._work.take(now):
            self.counts["over_packets_per_s"] += 1
            return None
        found = self.context.adopt(
            Flow(packet.protocol, packet.destination, packet.ports[1], packet.source, packet.ports[0])
        )
        self.counts[found.value] += 1
        return found

    def own_error(self, frame: bytes, now: float) -> bytes | None:
        """An ICMP error of this host as a frame for the client; as it is where no VIP's packet is quoted."""
        error = read_frame(frame)
        if error is None or not self._work.take(now):
            self.counts["over_packets_per_s"] += 1
            return None
        flow = flow_of_own(error)
        vip = self.context.vip_of(flow) if flow is not None else None
        translated = translate_own_error(error, *vip) if vip is not None else None
        if translated is None:
            return frame
        self.counts["icmp_translated"] += 1
        return error.link + translated

    def outbound(self, frame: bytes, now: float) -> bytes | None:
        """The whole frame of a reply whose last missing fragment this is."""
        packet = read_frame(frame)
        whole = None if packet is None or not packet.is_fragment else self._replies.add(packet, now)
        return None if packet is None or whole is None else packet.link + whole

    def _fragment(self, outer: Packet, packet: Packet, now: float) -> Inbound:
        whole = self._tunnelled.add(packet, now)
        if whole is None:
            return NOTHING
        if len(whole) + OUTER_BYTES[outer.version] > LARGEST_BYTES:
            return self._dropped("reassembly_malformed")
        again = ip_packet(
            outer.source, outer.destination, CARRIES[packet.version], whole, traffic_class=outer.traffic_class,
            hops=outer.hops,
        )  # fmt: skip
        return Inbound([], [outer.link + again])

    def _unknown_connection(self, outer: Packet, frame: bytes, now: float) -> Inbound:
        """A packet of a TCP connection that has no entry here, nor opens one.

        Where the host has no such connection either, the mux guessed: it gets the packet back, in IP in IP.  A mux
        whose address is not known, and all that is too much work, is believed.
        """
        if not self._check_budget.is_left(now):
            self.counts["unknown_over_cpu"] += 1
            return Inbound([], [frame], known_local=True)
        begun_s = self.cpu_s()
        found = self._check_sockets(outer, frame, now)
        self._check_budget.spend(self.cpu_s() - begun_s)
        return found

    def _check_sockets(self, outer: Packet, frame: bytes, now: float) -> Inbound:
        mine = Inbound([], [frame], known_local=True)
        packet = inside(outer, self.context.gue_port, self.context.geneve_port)
        if packet is None or packet.ports is None or outer.source not in self.context.muxes or not self._work.take(now):
            return mine
        flow = Flow(packet.protocol, packet.source, packet.ports[0], packet.destination, packet.ports[1])
        target = self.context.target(flow)
        if target is None or self.context.connected(_at_server(flow, target)):
            self.counts["unknown_connected"] += 1
            return mine
        self.counts["unknown_returned"] += 1
        return Inbound([], [], [returned_packet(outer, packet)])

    def _icmp(self, outer: Packet, packet: Packet) -> Inbound:
        """An error goes to the server that has the connection, as a packet of it does."""
        if not is_error(packet):
            self.counts["icmp_delivered"] += 1
            return Inbound([packet.data], [])  # a ping, which a host that has the VIP answers
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
    """As the server's socket has it: in a hairpin (lbmux.datapath.agent) the VIP is the client."""
    client = flow.vip if flow.client == target.dip else flow.client
    return flow._replace(client=client, vip=target.dip, vip_port=target.port or flow.vip_port)
