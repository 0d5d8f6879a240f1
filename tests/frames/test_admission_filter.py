"""The filter that admits shares of the packets to some VIPs, at work on sockets."""

import socket
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP
from scapy.packet import Packet

from lbmux.frames.admission_filter import MOST_VIPS, admission
from lbmux.frames.socket_filters import NOTHING, RETURN, WHOLE, Line, attach
from tests.frames.test_socket_filters import LINK, passes

EVERYTHING: tuple[Line, ...] = ((RETURN, 0, 0, WHOLE),)
VIP, VIP6, OTHER, OTHER6 = map(ip_address, ("192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"))
TRIES = 2000


def to(vip: object) -> Packet:
    packet: Packet = IPv6(dst=str(vip)) if ":" in str(vip) else IP(dst=str(vip))
    return packet


def admitted(program: tuple[Line, ...], packet: Packet) -> float:
    """Return the share of many packets that pass."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    count, frame = 0, bytes(LINK / packet)
    with sender, receiver:
        attach(receiver, program)
        receiver.setblocking(False)
        for _ in range(TRIES):
            sender.send(frame)
            try:
                count += len(receiver.recv(65536)) == len(frame)
            except BlockingIOError:
                continue
    return count / TRIES


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_a_share_of_new_flows_is_admitted_and_all_else(vip: object) -> None:
    program = admission({VIP: (0.25, 1.0), VIP6: (0.25, 1.0)}, EVERYTHING)
    assert admitted(program, to(vip) / TCP(dport=80, flags="S")) == pytest.approx(0.25, abs=0.1)
    for segment in (TCP(dport=80, flags="A"), TCP(dport=80, flags="SA"), UDP(dport=80)):
        assert admitted(program, to(vip) / segment) == 1.0


@pytest.mark.parametrize("vip", [VIP, VIP6])
def test_a_share_of_other_packets_is_admitted(vip: object) -> None:
    program = admission({VIP: (0.0, 0.5), VIP6: (0.0, 0.5)}, EVERYTHING)
    assert admitted(program, to(vip) / TCP(dport=80, flags="S")) == 0.0
    for segment in (TCP(dport=80, flags="A"), UDP(dport=80), ICMP()):
        assert admitted(program, to(vip) / segment) == pytest.approx(0.5, abs=0.1)


def test_other_addresses_are_not_concerned() -> None:
    program = admission({VIP: (0.0, 0.0), VIP6: (0.0, 0.0)}, EVERYTHING)
    for packet in (to(OTHER) / TCP(flags="S"), to(OTHER6) / UDP(), ARP()):
        assert passes(program, packet)
    assert not passes(program, to(VIP) / UDP()) and not passes(program, to(VIP6) / UDP())
    assert not passes(admission({VIP: (1.0, 1.0)}, NOTHING), to(OTHER) / UDP()), "the other program comes after it"


def test_it_has_space_for_many_vips_and_leaves_the_rest_alone() -> None:
    vips = [VIP6 + n for n in range(MOST_VIPS // 2)] + [VIP + n for n in range(MOST_VIPS // 2 + 1)]
    program = admission(dict.fromkeys(vips, (0.0, 0.0)), EVERYTHING)
    assert not any(passes(program, to(vip) / UDP()) for vip in vips[:-1])
    assert passes(program, to(vips[-1]) / UDP())
