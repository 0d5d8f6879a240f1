"""The packets of the scoreboard's floods."""

from ipaddress import IPv4Network, ip_address
from itertools import islice

import pytest

from lbmux.lab.scoreboard.flood import FIRST_PORT, KINDS, PACKETS, SPOOFED, acknowledgments, send, syns
from lbmux.lab.scoreboard.other_vip import OTHER_VIP
from lbmux.lab.scoreboard.scoreboard_events import flooded
from tests.slowpath.golden import dissect

VIP = ip_address("192.0.2.2")


def test_each_is_a_mid_connection_segment_of_another_flow() -> None:
    packets = list(acknowledgments(ip_address("198.51.100.2"), ip_address("192.0.2.1"), 80))
    assert len({packet[20:22] for packet in packets}) == len(packets) == PACKETS
    first = dissect(packets[0])
    assert (first.src, first.dst, first.sport, first.dport) == ("198.51.100.2", "192.0.2.1", FIRST_PORT, 80)
    assert str(first["TCP"].flags) == "A" and len(packets[0]) == 40


@pytest.mark.parametrize(
    ("kind", "layers", "flags"),
    [
        ("flood-syn", ["TCP"], "DF"), ("flood-udp", ["UDP"], "DF"), ("flood-icmp", ["ICMP"], "DF"),
        ("flood-fragments", ["UDP"], "MF"), ("flood-vip", ["TCP", "UDP", "ICMP"], ""),
    ],
)  # fmt: skip
def test_packets_are_of_their_kind_and_from_many_sources(kind: str, layers: list[str], flags: str) -> None:
    packets = [dissect(packet) for packet in islice(KINDS[kind](VIP, 7), 200)]
    assert {layer for packet in packets for layer in layers if layer in packet} == set(layers)
    assert all(any(layer in packet for layer in layers) for packet in packets)
    assert all(packet.dst == str(VIP) and ip_address(packet.src) in IPv4Network((SPOOFED, 15)) for packet in packets)
    assert len({packet.src for packet in packets}) > 45 and (
        not flags or {str(one.flags) for one in packets} == {flags}
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_flood_has_not_the_flows_of_the_one_before(kind: str) -> None:
    before, after = ({dissect(one).src for one in islice(KINDS[kind](VIP, 7), 100)} for _ in range(2))
    assert len(before & after) < 10


def test_a_syn_flood_has_syns_and_fragments_have_numbers_of_their_own() -> None:
    assert {str(dissect(packet)["TCP"].flags) for packet in islice(syns(VIP, 7), 10)} == {"S"}
    assert len({dissect(packet).id for packet in islice(KINDS["flood-fragments"](VIP, 7), 100)}) == 100


def test_the_flooded_vip_has_services_of_both_protocols_with_other_ports_at_the_hosts() -> None:
    echo = {"name": "echo", "vip": "192.0.2.1", "port": 7, "health": {"kind": "tcp"}}
    services = flooded(echo | {"backends": [{"name": "h1", "dip": "10.1.1.2", "port": 8007}]})
    assert [one["protocol"] for one in services] == ["tcp", "udp"]
    assert all(one["vip"] == OTHER_VIP and "health" not in one for one in services)
    assert {backend["port"] for one in services for backend in one["backends"]} == {8080}


@pytest.mark.root
def test_a_flood_takes_the_time_that_it_is_given() -> None:
    assert send(list(islice(KINDS["flood-icmp"](ip_address("127.0.0.1"), 7), 300)), "127.0.0.1", 0.3) == 300
