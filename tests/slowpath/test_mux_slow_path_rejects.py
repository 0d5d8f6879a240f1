"""Answers to a client of a service without a backend: a TCP reset, ICMP port unreachable, or none."""

from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Dot1Q, Ether

from lbmux.datapath.tables import REJECT_RATE
from lbmux.datapath.verdicts import Verdict
from tests.slowpath.case import FAMILIES, Case
from tests.slowpath.golden import CLIENT, CLIENT6, ETHER, VIP, VIP6

ENDS = {4: (VIP, CLIENT), 6: (VIP6, CLIENT6)}
DEAD_PORT = {"tcp": 81, "udp": 54}


def case(action: str = "reject", backends: Any = (), **settings: Any) -> Case:
    services = [
        {"name": f"{protocol}{family}", "vip": vip, "protocol": protocol, "port": port, "on_no_backend": action,
         "backends": list(backends)}
        for family, (vip, _) in ENDS.items()
        for protocol, port in DEAD_PORT.items()
    ]  # fmt: skip
    return Case(services=services, **settings)


def ip(family: int) -> Any:
    vip, client = ENDS[family]
    return IP(src=client, dst=vip) if family == 4 else IPv6(src=client, dst=vip)


def syn(family: int = 4, **more: Any) -> Any:
    return ip(family) / TCP(sport=4000, dport=DEAD_PORT["tcp"], flags="S", seq=1000, **more)


def datagram(family: int = 4) -> Any:
    return ip(family) / UDP(sport=4000, dport=DEAD_PORT["udp"]) / b"a question"


@FAMILIES
@pytest.mark.parametrize("action", ["reject", "withdraw"])
def test_a_syn_gets_a_reset(family: int, action: str) -> None:
    dead = case(action)
    answer = dead.answer(syn(family))
    assert dead.verdict == Verdict.NO_BACKEND
    assert (answer.src, answer.dst) == ENDS[family]
    assert (answer[TCP].sport, answer[TCP].dport) == (DEAD_PORT["tcp"], 4000)
    assert (answer[TCP].flags, answer[TCP].ack) == ("RA", 1001)
    assert dead.slow.counts == {"rejected_reset": 1}


@FAMILIES
@pytest.mark.parametrize("flags", ["A", "PA", "FA", "SA", "R", "RA", ""])
@pytest.mark.parametrize("action", ["reject", "withdraw"])
def test_a_connection_in_progress_is_not_reset(family: int, flags: str, action: str) -> None:
    """It continues if its backend comes back; its client retransmits what is dropped here."""
    dead = case(action)
    assert dead.arrive(ip(family) / TCP(sport=4000, dport=81, flags=flags, seq=7, ack=99)) == []
    assert dead.verdict == Verdict.NO_BACKEND
    assert dead.slow.counts == {"no_backend_in_mid_connection": 1}


def test_a_datagram_gets_port_unreachable() -> None:
    dead = case()
    answer = dead.answer(datagram())
    assert (answer.src, answer.dst, answer[ICMP].type, answer[ICMP].code) == (VIP, CLIENT, 3, 3)
    quoted = answer[ICMP].payload
    assert (quoted.src, quoted.dst, quoted.sport, quoted.dport) == (CLIENT, VIP, 4000, DEAD_PORT["udp"])
    assert dead.slow.counts == {"rejected_unreachable": 1}


def test_a_datagram_of_ipv6_gets_port_unreachable() -> None:
    answer = case().answer(datagram(6))
    assert (answer.src, answer.dst) == ENDS[6]
    assert (answer[ICMPv6DestUnreach].type, answer[ICMPv6DestUnreach].code) == (1, 4)


@FAMILIES
def test_with_drop_the_client_gets_no_answer(family: int) -> None:
    dead = case("drop")
    assert dead.arrive(syn(family)) == [] and dead.arrive(datagram(family)) == []
    assert dead.verdict == Verdict.NO_BACKEND and not dead.slow.counts


def test_a_packet_from_no_single_machine_is_not_answered() -> None:
    dead = case()
    assert dead.arrive(IP(src="224.0.0.1", dst=VIP) / TCP(sport=4000, dport=81, flags="S")) == []
    assert dead.slow.counts == {"rejected_reset_not_allowed": 1}


def test_the_answer_stays_in_the_vlan() -> None:
    (sent,) = case().arrive(Ether(**ETHER) / Dot1Q(vlan=7) / syn())
    assert Ether(sent.data)[Dot1Q].vlan == 7


def test_a_flood_gets_few_answers_and_does_not_suppress_pings() -> None:
    dead = case(rejects_per_s=100)
    answered = sum(bool(dead.arrive(datagram())) for _ in range(200))
    assert answered == 10, "a tenth of a second's at once"
    assert dead.slow.counts == {"rejected_unreachable": 10, "over_rejects_per_s": 190}
    assert dead.arrive(ip(4) / ICMP())
    dead.now += 0.1
    assert dead.arrive(datagram())


def test_a_flood_from_one_network_leaves_clients_of_others_their_answers() -> None:
    dead = case(rejects_per_s=100)
    answered = 0
    for at in range(1000):
        dead.now = at / 10_000
        dead.arrive(datagram())
        if at % 200 == 199:
            answered += len(dead.arrive(IP(src="192.0.2.99", dst=VIP) / UDP(sport=4000, dport=54)))
    assert answered == 5


@pytest.mark.parametrize(("action", "rejects"), [("reject", 1), ("withdraw", 1), ("drop", 0)])
def test_the_kernel_gets_the_rejecting_services_and_a_punt_rate(action: str, rejects: int) -> None:
    tables = case(action, rejects_per_s=1000).mux.tables
    rows = tables.services[tables.active][:4]
    assert rows["rejects"].tolist() == [rejects] * 4
    prices = tables.service_rates["price"][REJECT_RATE, :4]
    assert prices.tolist() == [round(1e6 / 2**20 * 2**22)] * 4, "a millisecond each"
