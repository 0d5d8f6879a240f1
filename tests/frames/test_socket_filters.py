"""The programs at work: on a pair of Unix sockets, which run them as packet sockets do."""

import socket

import pytest
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from lbmux.frames.socket_filters import NOTHING, WITH_SOURCE, answers, attach, tunnels

PORTS = (6080, 6081)
LINK = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # otherwise scapy resolves them on the machine's network
IN = {
    "IP in IP": IP() / IP() / UDP(),
    "IPv6 in IP": IP() / IPv6() / UDP(),
    "IP in IPv6": IPv6() / IP() / UDP(),
    "IPv6 in IPv6": IPv6() / IPv6() / UDP(),
    "GRE": IP() / GRE() / IP(),
    "GRE over IPv6": IPv6() / GRE() / IP(),
    "the first port": IP() / UDP(dport=PORTS[0]),
    "the last port": IP() / UDP(dport=PORTS[1]),
    "a port over IPv6": IPv6() / UDP(dport=PORTS[0]),
    "a port behind IP options": IP(options=b"\x01" * 4) / UDP(dport=PORTS[0]),
    "UDP's first fragment": IP(flags="MF") / UDP(dport=PORTS[0]) / Raw(bytes(8)),
    "UDP's last fragment": IP(frag=3, proto=17) / Raw(bytes(8)),
    "a fragment in IPv6": IPv6() / IPv6ExtHdrFragment(nh=17, offset=3) / Raw(bytes(8)),
}
OUT = {
    "another port": IP() / UDP(sport=PORTS[0], dport=53),
    "another port over IPv6": IPv6() / UDP(sport=PORTS[0], dport=53),
    "another port, not to be cut": IP(flags="DF") / UDP(dport=53),
    "TCP": IP() / TCP(dport=PORTS[0]),
    "TCP's fragment": IP(frag=3, proto=6) / Raw(bytes(8)),
    "TCP over IPv6": IPv6() / TCP(dport=PORTS[0]),
    "ICMP": IP() / ICMP(),
    "ICMPv6": IPv6() / ICMPv6EchoRequest(),
    "ARP": ARP(),
}


def passes(program: tuple[tuple[int, int, int, int], ...], packet: Packet, link: Packet = LINK) -> bool:
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender, receiver:
        attach(receiver, program)
        receiver.setblocking(False)
        frame = bytes(packet if isinstance(link, Raw) else link / packet)
        sender.send(frame)
        try:
            return receiver.recv(65536) == frame
        except BlockingIOError:
            return False


@pytest.mark.parametrize(
    ("source", "is_read"),
    [
        ("02:00:00:00:00:01", True),
        ("00:00:00:00:00:01", True),
        ("02:00:00:00:00:00", True),
        ("00:00:00:00:00:00", False),
    ],
)
def test_frames_that_an_agent_delivered_have_no_source_and_are_not_read(source: str, is_read: bool) -> None:
    assert passes(WITH_SOURCE, IP() / TCP(), Ether(src=source, dst="02:00:00:00:00:02")) == is_read


@pytest.mark.parametrize("packet", IN.values(), ids=IN)
def test_frames_that_may_be_tunnelled_are_read(packet: Packet) -> None:
    assert passes(tunnels(*PORTS), packet)


@pytest.mark.parametrize("packet", OUT.values(), ids=OUT)
def test_other_packets_are_not(packet: Packet) -> None:
    assert not passes(tunnels(*PORTS), packet)


def test_the_empty_program_accepts_no_packet() -> None:
    assert not passes(NOTHING, IP() / IP() / UDP())


FIRST, LAST = 61001, 61100
ANSWERS = {
    "the first port": (TCP(dport=FIRST), True),
    "the last port": (UDP(dport=LAST), True),
    "before the first": (TCP(dport=FIRST - 1), False),
    "behind the last": (UDP(dport=LAST + 1), False),
    "from such a port": (TCP(sport=FIRST, dport=80), False),
    "another protocol": (GRE(), False),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_to_probes_pass(name: str) -> None:
    segment, wanted = ANSWERS[name]
    assert passes(answers(4, FIRST, LAST), IP() / segment, Raw()) is wanted
    assert passes(answers(4, FIRST, LAST), IP(options=b"\x01" * 4) / segment, Raw()) is wanted
    assert passes(answers(6, FIRST, LAST), IPv6() / segment, Raw()) is wanted


def test_errors_pass_and_later_fragments_do_not() -> None:
    assert passes(answers(4, FIRST, LAST), IP() / ICMP(), Raw())
    assert passes(answers(6, FIRST, LAST), IPv6() / ICMPv6EchoRequest(), Raw())
    assert not passes(answers(4, FIRST, LAST), IP(frag=3, proto=6) / TCP(dport=FIRST), Raw())
