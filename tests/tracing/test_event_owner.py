"""The service and backend of a traced frame, by row or by destination."""

from ipaddress import ip_address

from lbmux.tracing.event_owner import EventOwner
from lbmux.tracing.header_summary import HeaderSummary
from tests.linux.inside import CONFIG, Inside
from tests.tracing.traced_frames import CLIENT, DNS, PING, SYN, VIP


def test_names_by_row_or_else_by_destination() -> None:
    inside = Inside()
    owner, row = EventOwner(), inside.snapshot.rows["web", "h2"]
    assert owner.find(inside.snapshot, HeaderSummary.read(bytes(SYN)), row) == ("web", "h2")
    assert owner.find(inside.snapshot, HeaderSummary.read(bytes(DNS)), -1) == ("dns", None)
    assert owner.find(inside.snapshot, HeaderSummary.read(bytes(PING)), -1) == (None, None)


def to_vip(protocol: int, port: int) -> HeaderSummary:
    return HeaderSummary(ip_address(CLIENT), ip_address(VIP), protocol, 4000, port)


def test_names_a_service_of_many_ports() -> None:
    web, dns = CONFIG["services"]
    dns = dns | {"vip": VIP, "protocol": "tcp"}
    few, rest = dns | {"name": "few", "port": 1000, "port_to": 1009}, dns | {"name": "rest", "port": "any"}
    snapshot, owner = Inside(CONFIG | {"services": [web, few, rest]}).snapshot, EventOwner()
    ports = {80: "web", 999: "rest", 1000: "few", 1005: "few", 1009: "few", 1010: "rest", 65535: "rest"}
    for port, name in ports.items():
        assert owner.find(snapshot, to_vip(6, port), -1) == (name, None)
    assert owner.find(snapshot, to_vip(17, 80), -1) == (None, None)


def test_an_unserved_port_has_no_service() -> None:
    web, dns = CONFIG["services"]
    snapshot = Inside(CONFIG | {"services": [web | {"port_to": 89}, dns]}).snapshot
    for port, name in ((79, None), (80, "web"), (89, "web"), (90, None)):
        assert EventOwner().find(snapshot, to_vip(6, port), -1) == (name, None)
