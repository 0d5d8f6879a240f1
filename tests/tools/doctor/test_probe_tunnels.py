"""Probes get the outer header of every kind of tunnel, as scapy reads it, and come to one length."""

import itertools
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import GRE, IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from lbmux.config.models import Config
from lbmux.linux.next_hops import NextHop
from lbmux.tools.doctor.node_state import NodeState
from lbmux.tools.doctor.probe_targets import targets
from lbmux.tools.doctor.probe_tunnels import Tunnels
from lbmux.tools.doctor.tunnel_probe import FIRST_PORT, Target, packet_of
from tests.tools.doctor.node_states import node

OWN = {4: IPv4Address("10.0.1.2"), 6: IPv6Address("2001:db8:0:1::2")}
VIP = {4: "192.0.2.1", 6: "2001:db8::1"}
HOST = {4: "10.1.1.2", 6: "2001:db8:1:1::2"}
PORT = {"gue1": 6080, "gue0": 6080, "geneve": 6081}
SHIM_BYTES = {"ipip": 0, "gre": 4, "gue1": 8, "gue0": 12, "geneve": 16, "direct": 0}


def service(name: str = "web", inner: int = 4, host: int = 4, **more: Any) -> dict[str, Any]:
    backends = [{"name": "h1", "dip": HOST[inner], "host": HOST[host], "port": 8080}]
    return {"name": name, "vip": VIP[inner], "protocol": "tcp", "port": 80, "backends": backends} | more


def of(*services: dict[str, Any]) -> NodeState:
    addresses = [str(address) for address in OWN.values()]
    return node("mux", config=Config.model_validate({"services": services}), runtime={"addresses": addresses})


def tunnel(target: Target, known: NodeState, hop: NextHop | None = None) -> Tunnels:
    assert known.config is not None
    return Tunnels(known.config, OWN.values(), {target.key}, {target.host: hop} if target.kind == "direct" else {})


@pytest.mark.parametrize(("inner", "host"), [*itertools.product((4, 6), repeat=2)])
@pytest.mark.parametrize("kind", [kind for kind in SHIM_BYTES if kind != "direct"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_outer_header_is_the_data_paths(kind: str, protocol: str, inner: int, host: int) -> None:
    known = of(service(inner=inner, host=host, tunnel=kind, protocol=protocol))
    (target,), left = targets(known)
    ways = tunnel(target, known)
    assert not left and ways.overhead_bytes(target.key) == {4: 20, 6: 40}[host] + SHIM_BYTES[kind]
    packet = packet_of(OWN, ways, FIRST_PORT, target)
    wrapped = ways.wrap(packet, inner, FIRST_PORT, target.key)
    assert wrapped is not None
    outer = Ether(wrapped[0])[{4: IP, 6: IPv6}[host]]
    assert (outer.src, outer.dst) == (str(OWN[host]), HOST[host])
    if kind in PORT:
        assert outer[UDP].dport == PORT[kind]
    assert (kind == "geneve") == outer.haslayer(GENEVE) and (kind == "gre") == outer.haslayer(GRE)
    behind_the_hops_left = {4: 12, 6: 8}[inner]
    assert bytes(outer).endswith(packet[behind_the_hops_left:])


@pytest.mark.parametrize("kind", SHIM_BYTES)
def test_a_long_probe_has_the_length_that_is_asked_for_tunnel_included(kind: str) -> None:
    known = of(service(tunnel=kind))
    (target,), _ = targets(known)
    target = Target(*target.key, target.host, target.vip, 80, kind=target.kind, length_bytes=1500)
    ways = tunnel(target, known, NextHop(7, 1, 2, 65535))
    wrapped = ways.wrap(packet_of(OWN, ways, FIRST_PORT, target), 4, FIRST_PORT, target.key)
    assert wrapped is not None and len(wrapped[0]) == 1514
    assert wrapped[1] == (7 if kind == "direct" else 0)


def test_without_a_tunnel_the_mac_address_must_be_known() -> None:
    known = of(service(tunnel="direct"))
    (target,), _ = targets(known)
    ways = tunnel(target, known)
    assert ways.wrap(packet_of(OWN, ways, FIRST_PORT, target), 4, FIRST_PORT, target.key) is None


def test_a_service_that_cannot_be_probed_has_a_reason() -> None:
    anything = service("anything", port="any")
    named = service("named", port="any", vip="192.0.2.2", health={"port": 8081})
    probed, left = targets(of(service(), anything, named))
    assert [(target.service, target.port) for target in probed] == [("web", 80), ("named", 8081)]
    assert [(names, "matches any port" in why) for why, names in left.items()] == [
        ([f"anything/h1 at {HOST[4]}"], True)
    ]
    own6 = node("mux", config=of(service(), service("six", 6)).config, runtime={"addresses": [str(OWN[4])]})
    probed, left = targets(own6)
    assert [target.service for target in probed] == ["web"]
    assert [(names, "no IPv6 address" in why) for why, names in left.items()] == [([f"six/h1 at {HOST[4]}"], True)]


def test_a_datagram_is_the_one_that_health_names() -> None:
    silent = service("silent", protocol="udp")
    asked = service("asked", protocol="udp", port=81, health={"kind": "udp", "send": "well?"})
    dns = service("dns", protocol="udp", port=53, health={"kind": "dns"})
    probed, _ = targets(of(silent, asked, dns))
    assert [(target.payload, target.answers) for target in probed[:2]] == [(b"lbmux", False), (b"well?", True)]
    assert probed[2].answers and len(probed[2].payload) == 17
    assert {ip_address(HOST[4])} == {target.host for target in probed}
