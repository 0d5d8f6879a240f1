"""A configuration made from a capture: which destinations are services, and whether the file is valid."""

from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from lbmux.config.loader import parse
from lbmux.errors import CaptureError, LbmuxError
from lbmux.tools.replay.captured_services import CapturedService, NoServicesError, as_yaml, services_in
from lbmux.tools.replay.looped_capture import LoopedCapture
from tests.frames.captures import pcap, record

ETHER = Ether(src="02:00:00:00:00:07", dst="02:00:00:00:00:08")

WEB, DNS, CLIENT = "192.0.2.1", "192.0.2.2", "198.51.100.7"


def tcp(source: str, port: int, to: str, to_port: int, flags: str = "S") -> Packet:
    return IP(src=source, dst=to) / TCP(sport=port, dport=to_port, flags=flags)


def udp(source: str, port: int, to: str, to_port: int) -> Packet:
    return IP(src=source, dst=to) / UDP(sport=port, dport=to_port)


def services(directory: Path, *packets: Packet) -> list[str]:
    """Names and numbers of flows."""
    (directory / "in").write_bytes(pcap(*(record(bytes(ETHER / packet)) for packet in packets)))
    with LoopedCapture(directory / "in") as looped:
        return [f"{service.name} {service.flows}" for service in services_in(looped)[0]]


def test_destinations_of_syns(tmp_path: Path) -> None:
    packets = [
        tcp(CLIENT, 1024, WEB, 80), tcp(WEB, 80, CLIENT, 1024, "SA"), tcp(CLIENT, 1024, WEB, 80, "A"),
        tcp(CLIENT, 1025, WEB, 443), tcp(CLIENT, 1026, WEB, 443), tcp(CLIENT, 1027, DNS, 22, "A"),
    ]  # fmt: skip
    assert services(tmp_path, *packets) == ["tcp-192.0.2.1-443 2", "tcp-192.0.2.1-80 1"]


def test_destinations_of_udp_requests_and_not_of_replies(tmp_path: Path) -> None:
    packets = [udp(CLIENT, 40000, DNS, 53), udp(DNS, 53, CLIENT, 40000), udp(CLIENT, 40000, DNS, 53)]
    assert services(tmp_path, *packets) == ["udp-192.0.2.2-53 1"]


def test_reply_whose_request_came_before_the_capture(tmp_path: Path) -> None:
    assert services(tmp_path, udp(DNS, 53, CLIENT, 40000), udp(CLIENT, 40001, DNS, 53)) == ["udp-192.0.2.2-53 1"]


def test_ipv6(tmp_path: Path) -> None:
    packet = IPv6(src="2001:db8::7", dst="2001:db8::80") / TCP(sport=1, dport=80, flags="S")
    assert services(tmp_path, packet) == ["tcp-2001:db8::80-80 1"]


def test_addresses_that_cannot_be_vips_are_skipped(tmp_path: Path) -> None:
    others = [udp(CLIENT, 5353, "224.0.0.251", 5353), udp(CLIENT, 68, "255.255.255.255", 67), udp(CLIENT, 9, WEB, 0)]
    assert services(tmp_path, *others, udp(CLIENT, 9000, WEB, 9)) == ["udp-192.0.2.1-9 1"]
    with pytest.raises(NoServicesError) as caught:
        services(tmp_path, *others)
    reason = "no TCP SYN and no UDP request to an address that can be a VIP in 3 packets"
    assert str(caught.value) == f"{tmp_path / 'in'}: {reason}"


def test_damage_comes_with_what_was_whole(tmp_path: Path) -> None:
    whole = record(bytes(ETHER / tcp(CLIENT, 1, WEB, 80)))
    (tmp_path / "in").write_bytes(pcap(whole, whole[:-1]))
    with LoopedCapture(tmp_path / "in") as looped:
        read, damage = services_in(looped)
    assert len(read) == 1 and isinstance(damage, CaptureError)


def service(vip: str, port: int = 80, flows: int = 1) -> CapturedService:
    return CapturedService("tcp", ip_address(vip), port, flows)


def test_file_is_valid_and_has_the_backends() -> None:
    given = [service(WEB), service("2001:db8::80"), service("198.18.0.2"), service("2001:2::1")]
    config = parse(as_yaml(given, 3, "title").encode(), Path("x"))
    assert [(one.vip, one.port, len(one.backends)) for one in config.services] == [(one.vip, 80, 3) for one in given]
    dips = [[str(backend.dip) for backend in one.backends] for one in config.services]
    assert dips[0] == dips[2] == ["198.18.0.1", "198.18.0.3", "198.18.0.4"]
    assert dips[1] == dips[3] == ["2001:2::2", "2001:2::3", "2001:2::4"]


def test_title_and_flows_are_comments() -> None:
    text = as_yaml([service(WEB, flows=2)], 1, "title")
    assert text.startswith("# title\n") and "port: 80    # 2 flows\n" in text


def test_more_backends_than_a_file_may_have() -> None:
    with pytest.raises(LbmuxError, match=r"backends in all: the limit is .*: use fewer --services or --backends"):
        as_yaml([service(WEB, port) for port in range(1, 101)], 1_000_000, "title")
