"""Frames without their tunnel, against packets that scapy made."""

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.tunnels import Ports
from lbmux.tracing.inner_frames import flow_at_agent, without_tunnel
from tests.tracing.traced_frames import DNS, SYN, WEB6


@pytest.mark.parametrize("padding", [b"", bytes(6)])
@pytest.mark.parametrize("inner", [SYN, WEB6, DNS])
@pytest.mark.parametrize("between", [None, UDP(dport=6080)])
def test_takes_the_tunnel_off(inner: Packet, between: Packet | None, padding: bytes) -> None:
    packet = inner.payload
    protocol = 4 if isinstance(packet, IP) else 41
    outer = IP(dst="10.1.1.2", proto=protocol) if between is None else IP(dst="10.1.1.2") / between
    left = bytes(Ether(type=0x0800) / outer / bytes(packet)) + padding
    bare = Ether(without_tunnel(bytes(inner), left))
    assert bytes(bare.payload) == bytes(packet)


def test_the_flow_of_a_frame_that_the_agent_kept_is_its_inner_packet() -> None:
    came = bytes(Ether(type=0x0800) / IP(dst="10.1.1.2", proto=4) / SYN.payload)
    flow = flow_at_agent(came, None, Verdict.UNKNOWN_CONNECTION, Ports(6080, 6081))
    assert flow is not None and bytes(Ether(flow).payload) == bytes(SYN.payload)


def test_the_flow_of_a_reply_is_the_translated_frame() -> None:
    assert flow_at_agent(b"", bytes(SYN), Verdict.REPLIED, Ports(6080, 6081)) == bytes(SYN)
