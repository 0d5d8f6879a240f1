"""What a host agent does with a frame that the data path handed up.

In:  a tunnelled ICMP error -> its quote translated -> the local stack;
     fragments, of the outer packet or of the inner one -> put together -> once more through the data path.
Out: fragments of a reply -> put together -> through the data path, which translates it -> cut again.
"""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from lbmux.addresses import Address
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.errors import is_error
from lbmux.slowpath.flow import Flow
from lbmux.slowpath.muxes import CARRIES, OUTER_BYTES
from lbmux.slowpath.packets import Packet, ip_packet, read_frame
from lbmux.slowpath.quoted import flow_of, translate_error
from lbmux.slowpath.rate import Bucket
from lbmux.slowpath.reassembly import LARGEST_BYTES, Reassembly
from lbmux.slowpath.tunnels import inside

INBOUND = (Verdict.ICMP, Verdict.FRAGMENT, Verdict.NOT_TUNNELLED)
"""Verdicts of frames that may be ours; NOT_TUNNELLED for fragments of outer packets."""
OUTBOUND = (Verdict.FRAGMENT,)


class Target(NamedTuple):
    """Where a VIP's service is at this host; the port is 0 where it stays as it is."""

    dip: Address
    port: int


@dataclass(frozen=True)
class Host:
    """``target``: of a flow's VIP and port, or None; it is the VIP itself where nothing is translated."""

    own: Collection[Address]
    muxes: Collection[Address]
    target: Callable[[Flow], Target | None]
    gue_port: int
    geneve_port: int
    packets_per_s: int


class Inbound(NamedTuple):
    """Packets for the local stack, and whole frames for another way through the data path."""

    packets: list[bytes]
    frames: list[bytes]


NOTHING = Inbound([], [])


@dataclass
class AgentSlowPath:
    host: Host
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._tunnelled, self._replies = Reassembly(self.counts), Reassembly(self.counts)
        self.configure(self.host)

    def configure(self, host: Host) -> None:
        """Another configuration; what is half put together stays."""
        self.host = host
        self._work = Bucket(host.packets_per_s)

    def inbound(self, verdict: Verdict, frame: bytes, now: float) -> Inbound:
        outer = read_frame(frame)
        if outer is None or outer.source not in self.host.muxes or outer.destination not in self.host.own:
            return NOTHING
        if not self._work.take(now):
            return self._dropped("over_packets_per_s")
        if outer.is_fragment:
            whole = self._tunnelled.add(outer, now)
            return Inbound([], [outer.link + whole] if whole else [])
        packet = inside(outer, self.host.gue_port, self.host.geneve_port)
        if packet is None:
            return self._dropped("tunnel_unusable")
        if packet.is_fragment:
            return self._fragment(outer, packet, now)
        return self._icmp(packet) if verdict == Verdict.ICMP else NOTHING

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
            outer.source, outer.destination, CARRIES[packet.version], whole, traffic_class=outer.traffic_class
        )
        return Inbound([], [outer.link + again])

    def _icmp(self, packet: Packet) -> Inbound:
        if not is_error(packet):
            self.counts["icmp_delivered"] += 1
            return Inbound([packet.data], [])  # a ping, which a host that has the VIP answers
        flow = flow_of(packet)
        target = None if flow is None else self.host.target(flow)
        if flow is None or target is None:
            return self._dropped("icmp_no_flow")
        error = packet.data if target.dip == flow.vip else translate_error(packet, *target)
        if error is None:
            return self._dropped("icmp_unusable")
        self.counts["icmp_delivered"] += 1
        return Inbound([error], [])

    def _dropped(self, why: str) -> Inbound:
        self.counts[why] += 1
        return NOTHING
