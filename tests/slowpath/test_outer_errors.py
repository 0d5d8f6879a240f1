"""A mux's slow path as a whole: ICMP errors about the outer packets that the mux sends to hosts."""

from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from lbmux.slowpath.mux_output import BY_ROUTE
from tests.slowpath.case import FAMILIES, Case
from tests.slowpath.golden import CLIENT, CLIENT6, ETHER, HOST, MUX, VIP, VIP6, ip, segment


def outer_error(
    case: Case, kind: int = 3, code: int = 4, mtu: int = 1400, quoted: int = 528, port: int = 40000, family: int = 4
) -> Any:
    """What a router says of a mux's outer packet, which it has got from the client's."""
    packet = ip(family, **({"flags": "DF"} if family == 4 else {})) / TCP(sport=port, dport=80) / Raw(bytes(1380))
    ((_, _, frame),) = case.mux.forward(bytes(Ether(**ETHER) / packet))
    outer = Ether(frame).payload
    if family == 4:
        error = ICMP(type=kind, code=code, nexthopmtu=mtu)
        return ip(4, "10.0.9.1", MUX) / error / Raw(bytes(outer)[:quoted])
    return ip(6, "fd00:9::1", outer.src) / ICMPv6PacketTooBig(mtu=mtu) / Raw(bytes(outer)[:quoted])


def not_believed(case: Case, error: Any) -> None:
    case.slow.counts.clear()
    assert case.arrive(error) == [] and case.slow.counts == {"outer_error_ignored": 1}
    assert case.slow.mtus.known(0.0) == {} and not case.slow.mtus.changed


def test_a_smaller_path_mtu_is_learned_and_reported_to_the_client() -> None:
    case = Case()
    (sent,) = case.arrive(outer_error(case))
    error = IP(sent.data)
    assert sent.interface == BY_ROUTE
    assert (error.src, error.dst, error[ICMP].code, error[ICMP].nexthopmtu) == (VIP, CLIENT, 4, 1380)
    host = ip_address(case.host_of(ip(4) / segment()))
    assert case.slow.mtus.known(0.0) == {host: 1400}
    assert case.slow.counts == {"path_mtu_learned": 1, "outer_error_relayed": 1}


def test_an_unreachable_host_is_reported_to_the_client() -> None:
    case = Case()
    for kind, code in ((3, 0), (3, 1), (11, 0)):
        (sent,) = case.arrive(outer_error(case, kind, code, 0))
        assert (IP(sent.data)[ICMP].type, IP(sent.data)[ICMP].code, IP(sent.data).dst) == (3, 1, CLIENT)


def test_an_error_about_another_machines_tunnel_is_not_believed() -> None:
    quote = bytes(IP(src="10.0.0.66", dst=HOST) / ip(4) / segment(1400))[:528]
    not_believed(Case(), ip(4, "10.0.9.1", MUX) / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(quote))


def test_an_error_about_an_invented_host_is_not_believed() -> None:
    case = Case()
    for last in range(1, 100):
        quote = bytes(IP(src=MUX, dst=f"10.77.0.{last}", flags="DF") / ip(4) / segment(1400))[:528]
        not_believed(case, ip(4, "10.0.9.1", MUX) / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(quote))


@pytest.mark.parametrize("protocol", [1, 6, 17, 41, 47])
def test_an_error_about_a_packet_outside_a_tunnel_is_ignored(protocol: int) -> None:
    """The mux sends IP in IP to that host."""
    quote = bytes(IP(src=MUX, dst=HOST, flags="DF", proto=protocol, len=1400) / Raw(bytes(100)))
    not_believed(Case(), ip(4, "10.0.9.1", MUX) / ICMP(type=3, code=4, nexthopmtu=1300) / Raw(quote))


@FAMILIES
@pytest.mark.parametrize("is_entered", [True, False], ids=["entry", "no entry"])
def test_an_error_about_a_flow_that_another_host_has_is_not_believed(family: int, is_entered: bool) -> None:
    case = Case()
    for port in range(40000, 40010):
        error = outer_error(case, port=port, family=family)
        outer = (IP if family == 4 else IPv6)(bytes(error[Raw]))
        if not is_entered:
            case.mux.tables.flows["state"] = 0
        hosts = [f"10.1.0.{n}" if family == 4 else f"fd00:1::{n}" for n in range(1, 5)]
        hosts.remove(outer.dst)
        for host in hosts:
            quote = bytearray(bytes(error[Raw]))
            at = 16 if family == 4 else 24
            quote[at : at + (4 if family == 4 else 16)] = ip_address(host).packed
            forged = error.copy()
            forged[Raw].load = bytes(quote)
            not_believed(case, forged)


def test_an_error_about_an_address_that_is_not_a_vip_is_ignored() -> None:
    quote = bytes(IP(src=MUX, dst=HOST, flags="DF") / ip(4, destination="203.0.113.99") / segment(1400))[:528]
    not_believed(Case(), ip(4, "10.0.9.1", MUX) / ICMP(type=3, code=4, nexthopmtu=1400) / Raw(quote))


@pytest.mark.parametrize("quoted", [28, 40, 44, 528])
@pytest.mark.parametrize("is_entered", [True, False], ids=["entry", "no entry"])
def test_an_error_lowers_the_mtu_to_the_floor_only(quoted: int, is_entered: bool) -> None:
    """A forger can quote a packet of its own connection, and the MTU applies to all connections of the host."""
    case = Case()
    error = outer_error(case, mtu=68, quoted=quoted)
    if not is_entered:
        case.mux.tables.flows["state"] = 0
    case.arrive(error)
    assert list(case.slow.mtus.known(0.0).values()) == [1280]


def test_the_floor_can_be_set() -> None:
    case = Case(path_mtu_floor=1000)
    case.arrive(outer_error(case, mtu=68, quoted=28))
    assert list(case.slow.mtus.known(0.0).values()) == [1000]


def test_an_error_about_a_flows_former_backend_is_accepted() -> None:
    case = Case()
    error = outer_error(case, mtu=1400)
    case.mux.tables.flows["state"] = 0
    services = []
    for service in case.mux.config.services:
        backends = tuple(
            b.model_copy(update={"weight": 0 if str(b.dip) == IP(bytes(error[Raw])).dst else 1})
            for b in service.backends
        )
        services.append(service.model_copy(update={"backends": backends}))
    config = case.mux.config.model_copy(update={"services": tuple(services)})
    case.mux.control.commit(case.mux.control.plan(config))
    case.arrive(error)
    assert list(case.slow.mtus.known(0.0).values()) == [1400]


@pytest.mark.parametrize("kind", ["gue1", "gue0", "gre", "geneve"])
def test_errors_about_other_tunnels_are_read_to_the_inner_packet(kind: str) -> None:
    case = Case(tunnel={"kind": kind})
    (sent,) = case.arrive(outer_error(case))
    assert IP(sent.data).dst == CLIENT and list(case.slow.mtus.known(0.0).values()) == [1400]
    case = Case(tunnel={"kind": kind})
    assert case.arrive(outer_error(case, mtu=68, quoted=28)) == []
    assert list(case.slow.mtus.known(0.0).values()) == [1280]


def test_a_smaller_path_mtu_is_written_to_the_table_once() -> None:
    case = Case()
    case.arrive(outer_error(case))
    assert len(case.slow.mtus.changed) == 1
    case.slow.mtus.changed.clear()
    case.arrive(outer_error(case))
    assert not case.slow.mtus.changed


def test_an_ipv6_error_about_the_outer_packet() -> None:
    case = Case()
    ((_, _, frame),) = case.mux.forward(bytes(Ether(**ETHER) / ip(6) / segment(1380)))
    outer = Ether(frame).payload
    error = ip(6, "fd00:9::1", outer.src) / ICMPv6PacketTooBig(mtu=1400) / Raw(bytes(outer)[:1232])
    (sent,) = case.arrive(error)
    answer = IPv6(sent.data)
    assert (answer.src, answer.dst, answer[ICMPv6PacketTooBig].mtu) == (VIP6, CLIENT6, 1360)
