"""Layouts of headers: against scapy's, and as the data path loads them."""

import re
from typing import Any

import numpy as np
import pytest
from scapy.contrib.geneve import GENEVE as ScapyGeneve
from scapy.layers import dns, inet, inet6, l2

from lbmux.datapath import headers as loaded
from lbmux.wire import header_layouts as headers
from lbmux.wire import numbers
from lbmux.wire.layout import Layout
from tests.source_tree import ROOT, files

ENDS = {"src": "192.0.2.1", "dst": "192.0.2.2"}
ENDS6 = {"src": "2001:db8::1", "dst": "2001:db8::2"}
MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
SAMPLES = [
    (headers.ETHERNET, l2.Ether(**MACS, type=0x1234), {"type": 0x1234, "source": b"\2\0\0\0\0\1"}),
    (headers.ARP, l2.ARP(op=2, psrc="192.0.2.1"), {"operation": 2, "sender": bytes([192, 0, 2, 1]), "protocol": 0x800}),
    (headers.IPV4, inet.IP(**ENDS, len=77, id=5, ttl=9, proto=6, tos=3, chksum=1, flags="DF"),
     {"length": 77, "identification": 5, "ttl": 9, "protocol": 6, "tos": 3, "checksum": 1, "fragment": numbers.DF,
      "destination": bytes([192, 0, 2, 2])}),
    (headers.IPV6, inet6.IPv6(**ENDS6, plen=77, nh=6, hlim=9), {"length": 77, "next": 6, "hops": 9}),
    (headers.FRAGMENT, inet6.IPv6ExtHdrFragment(nh=17, offset=2, m=1, id=9),
     {"next": 17, "fragment": 2 * 8 | numbers.V6_MF, "identification": 9}),
    (headers.TCP, inet.TCP(sport=1, dport=2, seq=3, ack=4, dataofs=5, flags="SA", window=6, chksum=7, urgptr=8),
     {"source_port": 1, "destination_port": 2, "sequence": 3, "acknowledgement": 4, "offset": 0x50,
      "flags": numbers.SYN | numbers.ACK, "window": 6, "checksum": 7, "urgent": 8}),
    (headers.UDP, inet.UDP(sport=1, dport=2, len=3, chksum=4),
     {"source_port": 1, "destination_port": 2, "length": 3, "checksum": 4}),
    (headers.ICMP_ECHO, inet.ICMP(type=8, code=1, chksum=2, id=3, seq=4),
     {"type": 8, "code": 1, "checksum": 2, "identifier": 3, "sequence": 4}),
    (headers.ICMP_ERROR, inet6.ICMPv6PacketTooBig(cksum=2, mtu=70000), {"type": 2, "checksum": 2, "value": 70000}),
    (headers.NEIGHBOUR, inet6.ICMPv6ND_NS(cksum=2, tgt="2001:db8::1"), {"type": 135, "checksum": 2, "flags": 0}),
    (headers.LINK_OPTION, inet6.ICMPv6NDOptDstLLAddr(lladdr=MACS["src"]), {"type": 2, "mac": b"\2\0\0\0\0\1"}),
    (headers.DNS, dns.DNS(id=7, qr=1, rcode=3, qd=[]), {"identifier": 7, "flags": 0x8103, "questions": 0}),
    (headers.GRE, l2.GRE(proto=0x86DD), {"flags_version": 0, "protocol": 0x86DD}),
    (headers.GENEVE, ScapyGeneve(vni=7, proto=0x6558), {"protocol": 0x6558, "network": 7 << 8}),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "scapy", "fields"), SAMPLES, ids=[scapy.name for _, scapy, _ in SAMPLES])
def test_same_fields_as_scapy(layout: Layout, scapy: Any, fields: dict[str, Any]) -> None:
    data = bytes(scapy)
    assert len(data) == layout.size
    unpacked = vars(layout.unpack(data))
    assert {name: unpacked[name] for name in fields} == fields


@pytest.mark.parametrize("name", ["ETHERNET", "TAG", "IPV4", "IPV6", "EXTENSION", "TCP", "UDP", "GRE", "GUE", "GENEVE"])
def test_the_data_path_loads_each_field_from_the_same_offset(name: str) -> None:
    layout, dtype = getattr(headers, name), getattr(loaded, name)
    offsets = {field: offset for field, (_, offset, *_) in dtype.fields.items()}
    shared = [field for field, _ in layout.fields if field in offsets]
    assert shared and all(layout.at(field) == offsets[field] for field in shared)


def test_the_data_path_loads_addresses_and_ports_whole() -> None:
    assert loaded.IPV6.fields["source_high"][1] == headers.IPV6.at("source")
    assert loaded.IPV6.fields["destination_low"][1] == headers.IPV6.at("destination") + 8
    assert loaded.ETHERNET.fields["source_high"][1] == headers.ETHERNET.at("source")
    assert loaded.TCP.fields["ports"] == loaded.UDP.fields["ports"] == (np.dtype("u4"), 0)


def test_numbers_as_loaded() -> None:
    frame = np.frombuffer(headers.ETHERNET.pack(type=numbers.ETHERTYPE_IPV6) + bytes(2), loaded.ETHERNET)
    assert frame["type"][0] == loaded.TYPE_IPV6


def test_formats_in_network_byte_order_are_only_here() -> None:
    network_format = re.compile(r"""["'][!>][0-9xcbBhHiIlLqQs]+["']""")
    with_formats = {str(path) for path in files("lbmux") if network_format.search((ROOT / path).read_text())}
    assert {path for path in with_formats if not path.startswith("lbmux/wire/")} == set()
