"""Settings of the kernel, as files that stand for /proc/sys."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lbmux.api.answers import HostForwarding
from lbmux.config.models import Config
from lbmux.tools.doctor import kernel_checks
from lbmux.tools.doctor.finding import Finding
from lbmux.tools.doctor.node_state import NodeState, Role
from tests.linux.inside import CONFIG
from tests.tools.doctor.node_states import node

Settings = Callable[..., None]
Check = Callable[[NodeState], Iterator[Finding]]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(kernel_checks, "SYSCTLS", tmp_path)

    def write(**values: int) -> None:
        for name, value in values.items():
            path = tmp_path / "net" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{value}\n")

    return write


def states(check: Check, role: Role, *vips: str) -> list[str]:
    node = NodeState(role, Path("/nonexistent"))
    if vips:
        service = {**CONFIG["services"][0], "backends": []}
        services = [service | {"vip": vip, "name": vip} for vip in vips]
        node.__dict__["config"] = Config.model_validate({"services": services})
    return [finding.state for finding in check(node)]


@pytest.mark.parametrize(
    ("role", "value", "state"),
    [("router", 1, "ok"), ("router", 0, "fault"), ("mux", 1, "warning"), ("mux", 0, "ok"), ("agent", 1, "ok")],
)
def test_a_router_forwards_and_a_mux_does_not(settings: Settings, role: Role, value: int, state: str) -> None:
    settings(ipv4__ip_forward=value)
    assert states(kernel_checks.forwarding, role) == [state]


@pytest.mark.parametrize(
    ("host", "state", "said"),
    [
        (
            HostForwarding(vips_filtered=True, dropped=7, reason=""),
            "ok",
            "the mux keeps VIP packets from the kernel (7 frames so far)",
        ),
        (
            HostForwarding(vips_filtered=False, dropped=0, reason="no tcx here"),
            "warning",
            "a forwarding loop (no tcx here)",
        ),
    ],
)
def test_a_mux_whose_host_forwards_filters_vips_or_says_why_not(
    settings: Settings, host: HostForwarding, state: str, said: str
) -> None:
    settings(ipv4__ip_forward=1)
    (finding,) = kernel_checks.forwarding(node("mux", runtime={"host_forwarding": host}, config=None))
    assert finding.state == state
    assert finding.seen.endswith(said)


def test_each_ip_version_of_the_vips_is_checked(settings: Settings) -> None:
    settings(ipv4__ip_forward=1, ipv6__conf__all__forwarding=0)
    assert states(kernel_checks.forwarding, "router", "192.0.2.1", "2001:db8::1") == ["ok", "fault"]
    assert states(kernel_checks.forwarding, "router", "192.0.2.1") == ["ok"]
    assert states(kernel_checks.forwarding, "router", "2001:db8::1") == ["fault"]


@pytest.mark.parametrize(
    ("policy", "fields", "state"), [(0, 7, "fault"), (1, 7, "ok"), (2, 7, "fault"), (3, 7, "fault"), (3, 55, "ok")]
)
def test_a_hash_without_ports_spreads_no_client(settings: Settings, policy: int, fields: int, state: str) -> None:
    settings(ipv4__fib_multipath_hash_policy=policy, ipv4__fib_multipath_hash_fields=fields)
    assert states(kernel_checks.multipath_hash, "router") == [state]


@pytest.mark.parametrize(
    ("everywhere", "own", "state"), [(0, 0, "ok"), (0, 1, "fault"), (1, 0, "fault"), (1, 2, "ok"), (2, 1, "ok")]
)
def test_the_larger_of_two_filters_holds(settings: Settings, everywhere: int, own: int, state: str) -> None:
    settings(ipv4__conf__all__rp_filter=everywhere, ipv4__conf__eth0__rp_filter=own, ipv4__conf__lo__rp_filter=1)
    assert states(kernel_checks.reverse_path, "router") == [state]
    if state == "fault":
        assert states(kernel_checks.reverse_path, "agent") == ["warning"]


@pytest.mark.parametrize(("state", "expected"), [(0, "ok"), (4, "ok"), (5, "warning"), (-1, "warning")])
def test_an_unsynchronised_clock(monkeypatch: pytest.MonkeyPatch, state: int, expected: str) -> None:
    monkeypatch.setattr(kernel_checks, "clock_state", lambda: state)
    assert states(kernel_checks.clock, "mux") == [expected]


def test_the_kernel_says_whether_the_clock_is_synchronised() -> None:
    assert kernel_checks.clock_state() in range(6)  # TIME_OK to TIME_ERROR, adjtimex(2)


@pytest.mark.parametrize(
    ("tcp", "udp", "said"), [(0, 0, None), (3, 0, ": 3 of TCP"), (0, 1, ": 1 of UDP"), (3, 1, "3 of TCP and 1 of UDP")]
)
def test_checksums_that_were_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tcp: int, udp: int, said: str | None
) -> None:
    path = tmp_path / "snmp"
    path.write_text(
        f"Ip: Forwarding InReceives\nIp: 2 9\nTcp: InSegs InCsumErrors\nTcp: 9 {tcp}\nUdp: InCsumErrors\nUdp: {udp}\n"
    )
    monkeypatch.setattr(kernel_checks, "NET_SNMP", path)
    (finding,) = kernel_checks.wrong_checksums(NodeState("host", Path("/nonexistent")))
    assert finding.state == ("warning" if said else "ok")
    assert finding.seen.endswith(said or "no packet had a wrong checksum")


def test_this_kernel_counts_them() -> None:
    assert all("InCsumErrors" in kernel_checks.snmp()[name] for name in ("Tcp", "Udp"))
