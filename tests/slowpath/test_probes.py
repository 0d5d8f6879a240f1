from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from lbmux.slowpath.probes import NO_ANSWER, acknowledged, probe

ENDS = {4: ("10.0.1.2", "192.0.2.1"), 6: ("2001:db8:9::2", "2001:db8::1")}
SEQUENCE, PORT = 0xFFFFFFFF, 6083


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", ["RA", "SA"])
def test_a_reset_and_a_syn_ack_answer_a_probe(version: int, flags: str) -> None:
    sent = probe(*map(ip_address, ENDS[version]), PORT, SEQUENCE)  # type: ignore[arg-type]
    packet = (IP if version == 4 else IPv6)(sent)
    assert (packet.src, packet.dst) == ENDS[version]
    assert (packet[TCP].sport, packet[TCP].dport, packet[TCP].seq, packet[TCP].flags) == (PORT, PORT, SEQUENCE, "S")
    whole = bytes(packet)
    del packet[TCP].chksum
    assert bytes(packet) == whole, "its checksum is right"
    answer = TCP(sport=PORT, dport=PORT, ack=(SEQUENCE + 1) & 0xFFFFFFFF, flags=flags)
    data = bytes(IP(src=ENDS[4][1], dst=ENDS[4][0]) / answer) if version == 4 else bytes(answer)
    assert acknowledged(data, version) == SEQUENCE


@pytest.mark.parametrize("data", [b"", b"\x45", bytes(39), bytes([0x4F]) + bytes(60), bytes(19)])
@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_that_is_too_short_or_not_an_answer(data: bytes, version: int) -> None:
    assert acknowledged(data, version) == NO_ANSWER


@pytest.mark.parametrize("flags", ["R", "A", "S", "FA"])
def test_other_segments_are_not_answers(flags: str) -> None:
    assert acknowledged(bytes(TCP(ack=8, flags=flags)), 6) == NO_ANSWER
