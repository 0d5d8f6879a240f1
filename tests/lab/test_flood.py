"""The packets of the scoreboard's flood."""

from ipaddress import ip_address

from lbmux.lab.scoreboard.flood import FIRST_PORT, PACKETS, acknowledgments
from tests.slowpath.golden import dissect


def test_each_is_a_mid_connection_segment_of_another_flow() -> None:
    packets = list(acknowledgments(ip_address("198.51.100.2"), ip_address("192.0.2.1"), 80))
    assert len({packet[20:22] for packet in packets}) == len(packets) == PACKETS
    first = dissect(packets[0])
    assert (first.src, first.dst, first.sport, first.dport) == ("198.51.100.2", "192.0.2.1", FIRST_PORT, 80)
    assert str(first["TCP"].flags) == "A" and len(packets[0]) == 40
