"""Through mux and agent and back, dissected with scapy: VIP -> DIP -> VIP (RFC 3022)."""

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from lbmux.datapath.verdicts import Verdict
from tests.datapath.harness import Frames, Machine
from tests.datapath.plain_agent import Endpoint
from tests.datapath.plain_mux import Backend, Service

CLIENT, VIP, DIP = "198.51.100.7", "192.0.2.1", "10.1.0.9"
MUX = "10.0.0.1"  # plain_mux.Backend's local address
LINK = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")


def packed(text: str) -> bytes:
    return bytes(map(int, text.split(".")))


def host() -> Machine:
    machine = Machine.make(16)
    endpoints = [
        Endpoint(packed(VIP), 80, packed(DIP), 8080, 6, owner=1),
        Endpoint(packed(VIP), 53, packed(DIP), 5353, 17, owner=2),
    ]
    machine.install_agent([packed(DIP)], [packed(MUX)], endpoints)
    return machine


def mux() -> Machine:
    machine = Machine.make(16)
    services = [Service(packed(VIP), 6, 80, (0,)), Service(packed(VIP), 17, 53, (0,))]
    machine.install_mux(services, [Backend(packed(DIP), mtu=1600)])
    return machine


def way_in(agent: Machine, packet: IP) -> IP:
    """Through a mux and the agent: what the server's stack gets."""
    batch = Frames([bytes(LINK / packet)])
    mux().worker.forward(batch, 1)
    assert batch.results()[0][0] == Verdict.FORWARDED
    batch = Frames([batch.results()[0][2]])
    agent.worker.inbound(batch, 1)
    ((verdict, _, frame),) = batch.results()
    assert verdict == Verdict.DELIVERED
    assert frame[:14] == bytes.fromhex("020000000009020000000001") + b"\x08\x00"  # the outer frame's addresses
    return Ether(frame)[IP]


def way_out(agent: Machine, packet: IP) -> IP:
    batch = Frames([bytes(LINK / packet)])
    agent.worker.outbound(batch, 1)
    ((verdict, _, frame),) = batch.results()
    assert verdict == Verdict.REPLIED
    return Ether(frame)[IP]


def assert_right_checksums(packet: IP) -> None:
    again = packet.copy()
    del again.chksum, again.payload.chksum
    again = IP(bytes(again))
    assert (packet.chksum, packet.payload.chksum) == (again.chksum, again.payload.chksum)


@pytest.mark.parametrize("size", [0, 1, 2, 1399, 1460])
@pytest.mark.parametrize("port", [1, 40000, 65535])
@pytest.mark.parametrize(("layer", "vip_port", "dip_port"), [(TCP, 80, 8080), (UDP, 53, 5353)])
def test_there_and_back(layer: type, vip_port: int, dip_port: int, port: int, size: int) -> None:
    agent, payload = host(), bytes(n * 31 % 256 for n in range(size))
    inner = IP(bytes(IP(src=CLIENT, dst=VIP, ttl=9, id=77, tos=4) / layer(sport=port, dport=vip_port) / payload))
    got = way_in(agent, inner)
    assert (got.src, got.dst, got.payload.sport, got.payload.dport) == (CLIENT, DIP, port, dip_port)
    assert (got.ttl, got.id, got.tos, bytes(got.payload.payload)) == (8, 77, 4, payload)
    assert_right_checksums(got)
    reply = way_out(agent, IP(src=DIP, dst=CLIENT) / layer(sport=dip_port, dport=port) / payload)
    assert (reply.src, reply.dst, reply.payload.sport, reply.payload.dport) == (VIP, CLIENT, vip_port, port)
    assert bytes(reply.payload.payload) == payload
    assert_right_checksums(reply)


def test_a_udp_datagram_without_a_checksum_stays_without() -> None:
    agent = host()
    got = way_in(agent, IP(bytes(IP(src=CLIENT, dst=VIP) / UDP(sport=9999, dport=53, chksum=0) / b"query")))
    assert (got.dst, got[UDP].dport, got[UDP].chksum) == (DIP, 5353, 0)
    reply = way_out(agent, IP(src=DIP, dst=CLIENT) / UDP(sport=5353, dport=9999, chksum=0) / b"answer")
    assert (reply.src, reply[UDP].sport, reply[UDP].chksum) == (VIP, 53, 0)


def test_a_wrong_checksum_stays_wrong_so_that_the_server_sees_it() -> None:
    good = IP(bytes(IP(src=CLIENT, dst=VIP) / TCP(sport=9999, dport=80) / b"data"))
    bad = good.copy()
    bad[TCP].chksum ^= 0x0101
    got = way_in(host(), bad)
    with pytest.raises(AssertionError):
        assert_right_checksums(got)


def test_a_udp_checksum_that_becomes_zero_is_sent_as_all_ones() -> None:
    """RFC 768; the payload is chosen so that the translated datagram sums to it."""
    bare = IP(bytes(IP(src=CLIENT, dst=DIP) / UDP(sport=9999, dport=5353) / b"\0\0"))
    payload = bare[UDP].chksum.to_bytes(2, "big")
    got = way_in(host(), IP(bytes(IP(src=CLIENT, dst=VIP) / UDP(sport=9999, dport=53) / payload)))
    assert got[UDP].chksum == 0xFFFF
