"""The built-in topology is sound: what one part of it names, another has."""

from ipaddress import IPv4Address, IPv4Interface
from itertools import combinations

import pytest

from lbmux.control.config import Config
from lbmux.lab.topology import (
    INTERFACE_NAME_CHARACTERS,
    NODE_SYSCTLS,
    TOPOLOGIES,
    TUNNEL_ADVMSS,
    VIP,
    Port,
    Topology,
    ananta,
)

IP_HEADER_BYTES, TCP_HEADER_BYTES = 20, 20


@pytest.fixture(params=TOPOLOGIES)
def topology(request: pytest.FixtureRequest) -> Topology:
    return TOPOLOGIES[request.param]()


def ports(topology: Topology) -> list[Port]:
    return [port for link in topology.links for port in (link.a, link.b)]


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


def test_both_ends_of_a_link_are_on_its_subnet_and_no_two_links_share_one(topology: Topology) -> None:
    networks = []
    for link in topology.links:
        a, b = IPv4Interface(link.a.address), IPv4Interface(link.b.address)
        assert a.network == b.network and a.ip != b.ip
        networks.append(a.network)
    assert not [pair for pair in combinations(networks, 2) if pair[0].overlaps(pair[1])]


def test_gateways_are_on_a_link_of_their_node(topology: Topology) -> None:
    for node in topology.nodes:
        networks = [IPv4Interface(port.address).network for port in ports(topology) if port.node == node.name]
        for route in node.routes:
            assert all(any(IPv4Address(via) in network for network in networks) for via in route.via), route


def test_configuration_is_usable_and_names_its_muxes_and_hosts(topology: Topology) -> None:
    config = Config.model_validate(topology.config)
    role = {IPv4Address(port.ip): topology.node(port.node).role for port in ports(topology)}
    assert {role[mux] for mux in config.muxes} == {"mux"}
    assert {role[backend.dip] for service in config.services for backend in service.backends} == {"host"}


def test_the_router_spreads_the_vip_over_all_muxes() -> None:
    topology = ananta()
    (route,) = topology.node("router").routes
    assert route.destination == f"{VIP}/32"
    assert set(route.via) == {topology.port(node.name).ip for node in topology.nodes if node.role == "mux"}


def test_what_hosts_offer_clients_fits_the_tunnel() -> None:
    topology = ananta()
    smallest = min(link.mtu for link in topology.links)
    assert smallest >= TUNNEL_ADVMSS + TCP_HEADER_BYTES + 2 * IP_HEADER_BYTES
    hosts = [node for node in topology.nodes if node.role == "host"]
    assert all(route.advmss == TUNNEL_ADVMSS for node in hosts for route in node.routes)


def test_both_agent_modes_are_in_use() -> None:
    programs = [program for node in ananta().nodes for program in node.programs if program.name == "agent"]
    modes = {program.arguments[program.arguments.index("--mode") + 1] for program in programs}
    assert modes == {"nat", "local"}


def test_whether_a_node_forwards_is_never_left_to_the_machine() -> None:
    assert NODE_SYSCTLS["net.ipv4.ip_forward"] == "0"
    forwarding = {node.role for node in ananta().nodes if node.sysctls.get("net.ipv4.ip_forward") == "1"}
    assert forwarding == {"router"}
