"""Frames as they are without their tunnel, which a mux's own data path and slow path have made."""

from ipaddress import ip_address
from random import Random
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, fragment
from scapy.layers.l2 import Dot1Q, Ether

from lbmux.config.models import Config, Service
from lbmux.config.traffic_models import Tunnel
from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.tunnels import Carriers, Ports, carriers, inner_frame, source_inside
from lbmux.tracing.inner_frames import flow_at_agent
from tests.slowpath.golden import ETHER, HOST6, MUX, datagram, ip, segment
from tests.slowpath.tables import Mux

FAMILIES = pytest.mark.parametrize("family", [4, 6])
KINDS = pytest.mark.parametrize("kind", ["ipip", "gue1", "gue0", "gre", "geneve"])
NUMBERS: dict[str, Any] = {"gue_port": 7000, "geneve_port": 7001}


def made(kind: str, **more: Any) -> tuple[Mux, Ports]:
    mux = Mux(tunnel={"kind": kind, **NUMBERS}, **more)
    return mux, Ports.of(mux.tables)


def test_carriers_after_changes_are_those_of_the_configuration() -> None:
    """Three services change again and again: other hosts, kinds and families; the tunnel's settings too."""
    random, known = Random(7), Carriers()
    services = dict[str, Service]()
    for _ in range(200):
        name, vip = random.choice("abc"), random.choice(["192.0.2.1", "2001:db8::1"])
        backends = [
            {"dip": f"10.0.0.{n}" if "." in vip else f"2001:db8:1::{n}", "host": f"10.1.0.{n}",
             "tunnel": random.choice([None, "gre"])}
            for n in random.sample(range(5), random.randrange(4))
        ]  # fmt: skip
        fields = {"name": name, "vip": vip, "protocol": "tcp", "port": ord(name), "backends": backends}
        services[name] = Service.model_validate(fields)
        tunnel = Tunnel(kind=random.choice(["ipip", "geneve"]) if random.random() < 0.1 else "ipip")
        config = Config.model_construct(services=(*services.values(),), tunnel=tunnel)
        assert known.of(config) == carriers(config)
        assert known.of(config).keys() == {one.tunnel_to for service in config.services for one in service.backends}


def bare(frame: bytes, ports: Ports) -> Any:
    inner = inner_frame(frame, ports)
    return None if inner is None else Ether(inner).payload


def hopped(packet: Any) -> bytes:
    """A hop later, as a mux is one."""
    name = "ttl" if packet.version == 4 else "hlim"
    after = packet.__class__(bytes(packet))
    setattr(after, name, getattr(packet, name) - 1)
    if packet.version == 4:
        del after.chksum
    return bytes(after)


def test_ports_are_the_configurations() -> None:
    assert made("ipip")[1] == Ports(7000, 7001)


@KINDS
@FAMILIES
def test_frames_that_the_slow_path_sends(family: int, kind: str) -> None:
    """Fragments of clients, too, whose outer packets are whole."""
    mux, ports = made(kind)
    backend = mux.control.rows[f"dns{family}", "b0"]
    packets = [ip(family) / datagram(100), ip(family) / ICMP(type=3) / datagram(40)]
    packets += fragment(ip(4) / datagram(2000), 1400) if family == 4 else []
    for packet in packets:
        ((_, frame),) = mux.forwarder.tunnel(bytes(packet), backend)
        assert bytes(bare(frame, ports)) == hopped(packet)


@KINDS
@FAMILIES
def test_the_source_inside_a_tunnel_is_found_without_parsing(family: int, kind: str) -> None:
    mux, ports = made(kind)
    client = "192.0.2.99" if family == 4 else "2001:db8:9::9"
    ((_, frame),) = mux.forwarder.tunnel(bytes(ip(family, client) / datagram()), mux.control.rows[f"dns{family}", "b0"])
    assert source_inside(frame, *ports) == ip_address(client).packed


@FAMILIES
def test_without_an_inner_packet_the_outer_source_counts(family: int) -> None:
    packet, (_, ports) = ip(family) / datagram(), made("ipip")
    assert source_inside(bytes(Ether(**ETHER) / packet), *ports) == ip_address(packet.src).packed
    assert source_inside(bytes(Ether(**ETHER) / Dot1Q(vlan=5) / packet), *ports) == b""
    short = bytes(Ether(**ETHER) / ip(family) / datagram(2))
    for end in range(len(short)):
        assert source_inside(short[:end], *ports) in (b"", ip_address(packet.src).packed)


def test_a_later_fragment_s_payload_is_not_taken_for_a_packet() -> None:
    later = IP(src=MUX, dst="10.1.0.1", proto=4, frag=8) / IP(src="192.0.2.99", dst="192.0.2.1") / datagram()
    assert source_inside(bytes(Ether(**ETHER) / later), *made("ipip")[1]) == ip_address(MUX).packed


@KINDS
def test_ipv6_outside(kind: str) -> None:
    services = Mux().config.model_dump(mode="json")["services"]
    services[0]["backends"] = [{"name": "b0", "dip": "10.1.0.1", "host": HOST6}]
    mux, ports = made(kind, services=services)
    ((_, frame),) = mux.forwarder.tunnel(bytes(ip(4) / segment()), mux.control.rows["web4", "b0"])
    assert Ether(frame).type == 0x86DD and bytes(bare(frame, ports)) == hopped(ip(4) / segment())


def test_tags_stay() -> None:
    inner = ip(6) / segment()
    frame = inner_frame(bytes(Ether(**ETHER) / Dot1Q(vlan=5) / IP(src=MUX, dst=MUX) / inner), Ports(1, 2))
    assert frame is not None and bytes(Ether(frame)[Dot1Q].payload) == bytes(inner)


def test_outer_fragments_and_untunnelled_packets_have_no_inner_packet() -> None:
    mux, ports = made("ipip")
    pieces = mux.forwarder.tunnel(bytes(ip(4) / datagram(1460)), mux.control.rows["dns4", "b0"])
    assert len(pieces) == 2 and [bare(frame, ports) for _, frame in pieces] == [None, None]
    for frame in (Ether(**ETHER) / ip(4) / segment(), Ether(**ETHER) / ip(4) / ICMP(), Ether(**ETHER, type=0x0806)):
        assert bare(bytes(frame), ports) is None


@KINDS
def test_a_packet_that_an_agent_kept_is_known_by_its_tunnel(kind: str) -> None:
    mux, ports = made(kind)
    ((_, came),) = mux.forwarder.tunnel(bytes(ip(4) / segment()), mux.control.rows["web4", "b0"])
    flow = flow_at_agent(came, None, Verdict.UNKNOWN_CONNECTION, ports)
    assert flow is not None and bytes(Ether(flow).payload) == hopped(ip(4) / segment())
