"""Packets for the slow path's tests, built and dissected by scapy: an implementation that is not ours."""

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbmux.wire.packet import Packet, read_frame, read_ip

CLIENT, VIP, DIP, HOST, MUX = "198.51.100.7", "203.0.113.10", "10.1.0.3", "10.1.0.1", "10.0.0.5"
CLIENT6, VIP6, DIP6, HOST6, MUX6 = "2001:db8:c::7", "2001:db8:f::10", "fd00:1::3", "fd00:1::1", "fd00::5"
ETHER = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}


def ip(family: int, source: str = "", destination: str = "", **fields: Any) -> Any:
    """An IP header from client to VIP."""
    if family == 4:
        return IP(src=source or CLIENT, dst=destination or VIP, **fields)
    return IPv6(src=source or CLIENT6, dst=destination or VIP6, **fields)


def back(family: int, **fields: Any) -> Any:
    """An IP header from VIP to client."""
    return ip(family, VIP if family == 4 else VIP6, CLIENT if family == 4 else CLIENT6, **fields)


def segment(length_bytes: int = 100, **fields: Any) -> Any:
    return TCP(sport=40000, dport=80, **fields) / Raw(bytes(length_bytes))


def datagram(length_bytes: int = 100, **fields: Any) -> Any:
    return UDP(sport=40000, dport=53, **fields) / Raw((bytes(range(256)) * (length_bytes // 256 + 1))[:length_bytes])


def read(packet: Any) -> Packet:
    """What ``read_ip`` or ``read_frame`` makes of a scapy packet, which must be something."""
    parsed = read_frame(bytes(packet)) if isinstance(packet, Ether) else read_ip(bytes(packet))
    assert parsed is not None
    return parsed


def dissect(data: bytes) -> Any:
    """Parse with scapy, and check the checksums by computing them again."""
    kind = IP if data[0] >> 4 == 4 else IPv6
    layers = kind(data)
    rebuilt = kind(data)
    for layer in (rebuilt, *rebuilt.iterpayloads()):
        if layer.name.endswith("in ICMP") or layer.name.startswith("ICMPv6 Extension"):
            break  # the quoted packet keeps its checksums
        for name in ("chksum", "cksum"):
            if name in layer.fields:
                del layer.fields[name]
    assert bytes(rebuilt) == data, "checksum"
    return layers


__all__ = ["ICMP", "back", "datagram", "dissect", "ip", "read", "segment"]
