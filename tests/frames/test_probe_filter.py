"""The filters that give muxes' probes a ring of their own, at work on sockets."""

import pytest
from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from lbmux.frames.probe_filter import SHORTEST, only_probes, without_probes
from lbmux.frames.socket_filters import tunnels
from tests.frames.test_socket_filters import passes

PORT, PORTS = 6083, (6080, 6081)
OUTER = {"IPv4": IP(src="10.0.1.2", dst="10.1.1.2"), "IPv6": IPv6(src="2001:db8::1", dst="2001:db8::2")}
INNER = {"IPv4": IP(src="10.0.1.2", dst="192.0.2.1"), "IPv6": IPv6(src="2001:db8::1", dst="2001:db8:1::1")}
GUE_HEADER = {"IPv4": bytes([0, 4, 0, 0]), "IPv6": bytes([0, 41, 0, 0])}
ETHERTYPE = {"IPv4": 0x0800, "IPv6": 0x86DD}
KINDS = ("ipip", "gre", "gue0", "gue1", "geneve")


def tunnelled(kind: str, outer: str, inner: str, segment: Packet) -> Packet:
    packet = INNER[inner] / segment
    header = {
        "ipip": None, "gre": GRE(), "gue0": UDP(dport=PORTS[0]) / Raw(GUE_HEADER[inner]), "gue1": UDP(dport=PORTS[0]),
        "geneve": UDP(dport=PORTS[1]) / GENEVE(proto=ETHERTYPE[inner]),
    }[kind]  # fmt: skip
    return OUTER[outer] / packet if header is None else OUTER[outer] / header / Raw(bytes(packet))


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_goes_to_its_own_ring_and_no_other_packet_does(kind: str, outer: str, inner: str) -> None:
    first, rest = only_probes(PORT, *PORTS), without_probes(PORT, *PORTS, tunnels(*PORTS))
    probe = tunnelled(kind, outer, inner, TCP(sport=PORT, dport=PORT, flags="S"))
    assert (passes(first, probe), passes(rest, probe)) == (True, False)
    for other in (TCP(sport=PORT, dport=80), UDP(dport=PORT) / Raw(bytes(20)), ICMP() / Raw(bytes(40))):
        packet = tunnelled(kind, outer, inner, other)
        assert (passes(first, packet), passes(rest, packet)) == (False, True)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_that_is_cut_off_anywhere_is_still_read_and_counted(kind: str, outer: str, inner: str) -> None:
    rest, whole = without_probes(PORT, *PORTS, tunnels(*PORTS)), tunnels(*PORTS)
    probe = bytes(tunnelled(kind, outer, inner, TCP(sport=PORT, dport=PORT, flags="S")))
    for length in range(SHORTEST - 20, len(probe)):
        kept = OUTER[outer].__class__(probe[:length])
        assert passes(rest, kept) == passes(whole, kept)


def test_segments_without_a_tunnel_or_behind_ip_options_stay_with_the_others() -> None:
    segment = TCP(sport=PORT, dport=PORT, flags="S")
    plain, options = INNER["IPv4"] / segment, IP(options=b"\x01" * 4) / INNER["IPv4"] / segment
    assert not passes(only_probes(PORT, *PORTS), plain) and not passes(only_probes(PORT, *PORTS), options)
    assert passes(without_probes(PORT, *PORTS, tunnels(*PORTS)), options)
