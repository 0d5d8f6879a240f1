"""Frames that scapy made, and events of them."""

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from lbmux.datapath.verdicts import Verdict
from lbmux.frames.frame_copy import FrameCopy
from lbmux.tracing.trace_event import TraceEvent

CLIENT, VIP = "198.51.100.7", "192.0.2.1"
LINK = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # otherwise scapy resolves them on the machine's network
ENDS: dict[str, Any] = {"src": CLIENT, "dst": VIP}
SYN = LINK / IP(**ENDS) / TCP(sport=4000, dport=80, flags="S")
TAGGED = LINK / Dot1Q(vlan=5) / IP(**ENDS) / TCP(sport=4001, dport=80, flags="PA")
DNS = LINK / IP(src=CLIENT, dst="192.0.2.2") / UDP(sport=4002, dport=53)
PING = LINK / IP(**ENDS) / ICMP()
PING6 = LINK / IPv6(src="2001:db8::7", dst="2001:db8::1") / ICMPv6EchoRequest()
WEB6 = LINK / IPv6(src="2001:db8::7", dst="2001:db8::1") / TCP(sport=4003, dport=443, flags="S")
LATER = LINK / IP(**ENDS, proto=6, frag=100) / bytes(40)
QUESTION = LINK / ARP()
OPTIONS = LINK / IP(**ENDS, options=[b"\x07\x07\x04\x00\x00\x00\x00\x00"]) / TCP(sport=4004, dport=80)
FRAMES = {
    "syn": SYN, "tagged": TAGGED, "dns": DNS, "ping": PING, "ping6": PING6, "web6": WEB6, "later": LATER,
    "arp": QUESTION, "options": OPTIONS,
}  # fmt: skip
SAID = {"syn": (Verdict.FORWARDED, "web", "h1"), "dns": (Verdict.DENIED, "dns", None)}


def pictured(frame: Packet) -> FrameCopy:
    return FrameCopy(bytes(frame), len(frame), 0, 0)


def event(name: str) -> TraceEvent:
    verdict, service, backend = SAID.get(name, (Verdict.NOT_VIP, None, None))
    return TraceEvent(pictured(FRAMES[name]), verdict, service, backend)
