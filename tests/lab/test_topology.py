"""The built-in topology is sound: what one part of it names, another has."""

from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from itertools import combinations

import pytest

from lbmux.config.models import Config
from lbmux.lab.systems.built_in import TOPOLOGIES
from lbmux.lab.topology import (
    INTERFACE_NAME_CHARACTERS,
    NODE_SYSCTLS,
    TUNNEL_ADVMSS,
    TUNNEL_ADVMSS_IPV6,
    VIP,
    VIP6,
    Port,
    Topology,
    ananta,
)

IP_HEADER_BYTES, IPV6_HEADER_BYTES, TCP_HEADER_BYTES = 20, 40, 20


@pytest.fixture(params=TOPOLOGIES)
def topology(request: pytest.FixtureRequest) -> Topology:
    return TOPOLOGIES[request.param]()


def ports(topology: Topology) -> list[Port]:
    return [port for link in topology.links for port in (link.a, link.b)]


def interfaces(port: Port) -> list[IPv4Interface | IPv6Interface]:
    return [ip_interface(text) for text in port.addresses]


def test_names_of_nodes_are_unique(topology: Topology) -> None:
    names = [node.name for node in topology.nodes]
    assert len(names) == len(set(names))


def test_every_link_joins_two_nodes_of_it(topology: Topology) -> None:
    names = {node.name for node in topology.nodes}
    assert all({link.a.node, link.b.node} <= names and link.a.node != link.b.node for link in topology.links)


def test_interfaces_are_unique_in_their_node_and_short_enough(topology: Topology) -> None:
    interfaces = [(port.node, port.interface) for port in ports(topology)]
    assert len(interfaces) == len(set(interfaces))
    assert all(len(interface) <= INTERFACE_NAME_CHARACTERS for _, interface in interfaces)


def switches(topology: Topology) -> set[str]:
    return {node.name for node in topology.nodes if node.switches}


def test_nodes_on_a_switch_share_a_subnet(topology: Topology) -> None:
    for switch in switches(topology):
        links = [link for link in topology.links if link.a.node == switch]
        here = [interface for link in links for interface in interfaces(link.b)]
        assert len({interface.network for interface in here}) == 1 and len({one.ip for one in here}) == len(links)
        assert not [interface for link in links for interface in interfaces(link.a)]


def test_both_ends_of_a_link_are_on_its_subnet_and_no_two_links_share_one(topology: Topology) -> None:
    networks = []
    without_addresses = switches(topology) | {node.name for node in topology.nodes if node.role == "wan"}
    for link in (link for link in topology.links if link.a.node not in without_addresses):
        for a, b in zip(interfaces(link.a), interfaces(link.b), strict=True):
            assert a.network == b.network and a.ip != b.ip
            networks.append(a.network)
    alike = [pair for pair in combinations(networks, 2) if pair[0].version == pair[1].version]
    assert not [pair for pair in alike if pair[0].overlaps(pair[1])]


def test_gateways_are_on_a_link_of_their_node(topology: Topology) -> None:
    for node in topology.nodes:
        own = [port for port in ports(topology) if port.node == node.name]
        networks = [interface.network for port in own for interface in interfaces(port)]
        for route in node.routes:
            assert all(any(ip_address(via) in network for network in networks) for via in route.via), route


def test_configuration_is_usable_and_names_its_muxes_and_hosts(topology: Topology) -> None:
    config = Config.model_validate(topology.config)
    role = {one.ip: topology.node(port.node).role for port in ports(topology) for one in interfaces(port)}
    role |= {ip_interface(text).ip: node.role for node in topology.nodes for _, text in node.extra_addresses}
    assert {role[mux] for mux in config.muxes} <= {"mux", "edge"}
    assert {role[backend.dip] for service in config.services for backend in service.backends} <= {"host", "edge"}


def test_the_router_spreads_the_vips_over_all_muxes() -> None:
    topology = ananta()
    muxes = [interfaces(topology.port(node.name)) for node in topology.nodes if node.role == "mux"]
    to_vip, to_vip6 = topology.node("router").routes
    assert (to_vip.destination, to_vip6.destination) == (f"{VIP}/32", f"{VIP6}/128")
    assert [*to_vip.via] == [str(mux[0].ip) for mux in muxes]
    assert [*to_vip6.via] == [str(mux[1].ip) for mux in muxes]


def test_the_mss_that_hosts_offer_fits_the_tunnel() -> None:
    topology = ananta()
    smallest = min(link.mtu for link in topology.links)
    assert smallest >= TUNNEL_ADVMSS + TCP_HEADER_BYTES + 2 * IP_HEADER_BYTES
    assert smallest >= TUNNEL_ADVMSS_IPV6 + TCP_HEADER_BYTES + 2 * IPV6_HEADER_BYTES
    for node in (node for node in topology.nodes if node.role == "host"):
        assert [route.advmss for route in node.routes] == [TUNNEL_ADVMSS, TUNNEL_ADVMSS_IPV6]


def test_both_agent_modes_are_in_use() -> None:
    programs = [program for node in ananta().nodes for program in node.programs if program.name == "agent"]
    modes = {program.arguments[program.arguments.index("--mode") + 1] for program in programs}
    assert modes == {"nat", "local"}


def test_whether_a_node_forwards_is_never_left_to_the_machine() -> None:
    assert NODE_SYSCTLS["net.ipv4.ip_forward"] == "0"
    forwarding = {node.role for node in ananta().nodes if node.sysctls.get("net.ipv4.ip_forward") == "1"}
    assert forwarding == {"router"}
