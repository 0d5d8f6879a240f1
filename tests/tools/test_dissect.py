"""Frames dissected for people: a line for each header."""

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from lbmux.tools.dissect import dissect


def test_each_header_is_a_line_with_its_fields() -> None:
    packet = (
        IP(src="10.0.0.1", dst="10.1.1.2") / IPv6(src="2001:db8::1", dst="2001:db8::2") / TCP(dport=4242, flags="S")
    )
    lines = dissect(bytes(Ether() / packet / bytes(range(20))))
    assert [line.split()[0] for line in lines] == ["Ether", "IP", "IPv6", "TCP", "Raw"]
    assert "src=10.0.0.1 dst=10.1.1.2" in lines[1] and "dst=2001:db8::2" in lines[2]
    assert "dport=4242" in lines[3] and "flags=S" in lines[3]
    assert lines[4] == "Raw 20 bytes: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f ..."


def test_a_frame_truncated_in_a_header_is_shown_in_part() -> None:
    whole = bytes(Ether() / IP() / UDP(sport=1, dport=2))
    for length in range(len(whole)):
        assert dissect(whole[:length]) or not length
