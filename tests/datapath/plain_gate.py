"""The plain twin of the gate: what it counts of each packet by VIP."""

from dataclasses import dataclass, field

from lbmux.wire.numbers import ACK, SYN, TCP_PROTOCOL, UDP_PROTOCOL
from tests.datapath.craft import Craft

Flow = tuple[bytes, int, bytes]


@dataclass
class PlainUsage:
    """``begun_flows`` began with a SYN, ``later`` sent another packet; the gate judges one flow in 16, this one all."""

    packets: int = 0
    begins: int = 0
    judged: int = 0
    follows: int = 0
    dropped: int = 0
    sources: set[bytes] = field(default_factory=set)
    begun: int = 0
    completed: int = 0
    begun_flows: set[Flow] = field(default_factory=set)
    later: set[Flow] = field(default_factory=set)

    def take(self, craft: Craft, is_black_hole: bool) -> None:
        is_fragment = not craft.is_ipv6 and craft.fragment & 0x3FFF != 0
        is_whole = not is_fragment and not craft.options
        ports = b""
        if is_whole and craft.protocol in (TCP_PROTOCOL, UDP_PROTOCOL):
            ports = craft.source_port.to_bytes(2) + craft.destination_port.to_bytes(2)
        is_syn = is_whole and craft.protocol == TCP_PROTOCOL and craft.flags & (SYN | ACK) == SYN
        flow = craft.source, craft.protocol if is_whole else 0, ports
        self.packets += 1
        self.begins += is_syn
        self.sources.add(craft.source)
        if is_black_hole:
            self.dropped += 1
            return
        if is_syn:
            self.begun += flow not in self.begun_flows
            self.begun_flows.add(flow)
            return
        self.judged += 1
        self.follows += flow in self.begun_flows | self.later
        self.completed += flow in self.begun_flows - self.later
        self.later.add(flow)
