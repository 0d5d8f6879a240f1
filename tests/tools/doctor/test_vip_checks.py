"""Which VIPs are asked for on the links, and what is said of the others."""

from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from lbmux.addresses import Address
from lbmux.tools.doctor import vip_checks
from lbmux.tools.doctor.finding import Finding
from lbmux.tools.doctor.node_state import Role
from tests.tools.doctor.node_states import node

MAC = "02:00:00:00:00:09"
VIPS: list[Address] = [IPv4Address("192.0.2.0") + n for n in range(10)]
VIPS6: list[Address] = [IPv6Address("2001:db8::") + n for n in range(8)]


@pytest.fixture
def claimed(monkeypatch: pytest.MonkeyPatch) -> set[Address]:
    """VIPs for which a host answers, on every link."""
    answered = set[Address]()
    monkeypatch.setattr(vip_checks, "who_has", lambda name, vip: {MAC} if vip in answered else set())
    monkeypatch.setattr(vip_checks, "first_address", lambda name, version: IPv4Address("10.0.0.1"))
    monkeypatch.setattr(vip_checks, "links", lambda: ["to-host1"])
    return answered


def found(*of: Address) -> list[Finding]:
    return [*vip_checks.claimed(node("router", vips=list(of)))]


def test_no_machine_answers_for_a_vip(claimed: set[Address]) -> None:
    assert [(one.state, one.seen) for one in found(*VIPS)] == [
        ("ok", "no machine on this router's links answers for a VIP"),
    ]  # fmt: skip


def test_a_host_answers_for_each_version(claimed: set[Address]) -> None:
    claimed |= {VIPS[3], VIPS6[2]}
    first, second = found(*VIPS, *VIPS6[:5])
    assert (first.state, first.seen) == ("fault", f"{MAC} on to-host1 answers ARP for the VIP 192.0.2.3")
    assert second.seen == f"{MAC} on to-host1 answers neighbour discovery for the VIP 2001:db8::2"
    assert "arp_ignore=1" in first.hint and "on lo only" in second.hint


def test_more_than_are_asked_for_are_named(claimed: set[Address]) -> None:
    claimed.add(VIPS6[7])
    fine, rest = found(*VIPS, *VIPS6)
    assert fine.state == "ok" and rest.state == "unchecked"
    assert rest.seen == "2001:db8::6, 2001:db8::7: at most 16 VIPs are looked up in one run"


def test_without_a_source_address_a_vip_is_unchecked(claimed: set[Address], monkeypatch: pytest.MonkeyPatch) -> None:
    addresses: dict[int, Address] = {4: IPv4Address("10.0.0.1"), 6: IPv6Address(0)}
    monkeypatch.setattr(vip_checks, "first_address", lambda name, version: addresses[version])
    fine, alone = found(VIPS[0], VIPS6[0])
    assert (fine.state, alone.state) == ("ok", "unchecked") and "2001:db8::: no link here" in alone.seen
    addresses[4] = IPv4Address(0)
    assert [one.state for one in found(VIPS[0], VIPS6[0])] == ["unchecked"]


def test_without_vips_there_is_no_finding(claimed: set[Address]) -> None:
    assert found() == []


def owned(monkeypatch: pytest.MonkeyPatch, vip: Address, length: int, role: Role = "mux", **known: Any) -> Finding:
    """The only finding where this machine has the VIP, as an address of so long a prefix on eth0."""
    monkeypatch.setattr(vip_checks, "addresses", lambda: [vip])
    monkeypatch.setattr(vip_checks, "prefix_of", lambda address: (length, "eth0"))
    (finding,) = vip_checks.ownership(node(role, **{"runtime": None, "config": None, "vips": [vip]} | known))
    return finding


@pytest.mark.parametrize(("vip", "length"), [(VIPS[1], 32), (VIPS6[1], 128)])
def test_a_vip_among_the_machines_addresses_is_reported(
    vip: Address, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = owned(monkeypatch, vip, length)
    assert finding.state == "fault" and finding.hint == f"ip address del {vip}/{length} dev eth0"


@pytest.mark.parametrize("vip", [VIPS[1], VIPS6[1]])
@pytest.mark.parametrize(
    ("role", "length", "known", "seen"),
    [
        ("mux", 128, {"runtime": True}, "is also the address that identifies this mux"),
        ("mux", 24, {}, "/24 is its interface address on eth0"),
        ("router", 24, {}, "/24 is its interface address on eth0"),
    ],
)
def test_a_vip_that_is_the_machines_own_address_is_not_to_be_removed(
    vip: Address, role: Role, length: int, known: dict[str, Any], seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = {"runtime": {"addresses": [str(vip)]}} if known else {}
    finding = owned(monkeypatch, vip, length, role, **runtime)
    assert finding.state == "fault" and seen in finding.seen and "del" not in finding.hint
    assert finding.hint == f"give the service another VIP in the file and keep {vip} for the {role}"


def test_the_prefix_of_an_address_of_this_machine() -> None:
    assert vip_checks.prefix_of(IPv4Address("127.0.0.1")) == (8, "lo")
