"""On a host whose kernel forwards (net.ipv4.ip_forward=1), packets for the mux are not forwarded a second time."""

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment

from lbmux.config.models import Config
from lbmux.daemons import host_forwarding
from lbmux.daemons.host_forwarding import HostForwarding
from lbmux.frames.xdp import detach
from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP, VIP6
from lbmux.targets.bpf.syscall import BpfError
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon, configuration, running, service

root = pytest.mark.root
SOURCE, SOURCE6 = "198.51.100.2", "2001:db8:100::2"
VIPS, OTHERS = {4: VIP, 6: VIP6}, {4: "203.0.113.9", 6: "2001:db8:203::9"}
MARK = 0x7E57
"""The identification of IPv4 packets, the flow label of IPv6 packets."""
SYSCTLS = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
SERVICES = (
    service("web", 80, [{"name": "h1", "dip": "10.1.1.2", "port": 8080}]),
    service("web6", 80, [{"name": "h1", "dip": "2001:db8:1:1::2", "port": 8080}], vip=VIP6),
)


def header(family: int, destination: str) -> IP | IPv6:
    """Two hops are left: forwarded by the mux's kernel, it goes no further than to the router."""
    if family == 4:
        return IP(src=SOURCE, dst=destination, ttl=2, id=MARK)
    return IPv6(src=SOURCE6, dst=destination, hlim=2, fl=MARK)


def is_marked(family: int, frame: bytes) -> bool:
    """Whether it is a packet of these tests: a stray one of an earlier connection loops until a mux takes the VIP."""
    return int.from_bytes(frame[18:20] if family == 4 else frame[16:18], "big") == MARK


def taken(family: int) -> list[bytes]:
    """What a mux handles: in the fast path, as none of its services, and in the slow path."""
    ip, ping = header(family, VIPS[family]), ICMP() if family == 4 else ICMPv6EchoRequest()
    fragment = ip / IPv6ExtHdrFragment(m=1, nh=17)
    if family == 4:
        fragment = IP(src=SOURCE, dst=VIP, flags="MF", proto=17, ttl=2, id=MARK)
    packets = [ip / TCP(dport=80), ip / TCP(dport=81), ip / ping, fragment / bytes(16)]
    return [bytes(packet) for packet in packets]


def other(family: int) -> bytes:
    return bytes(header(family, OTHERS[family]) / TCP(dport=80))


def opened(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((interface, 3))
    sock.settimeout(5)
    return sock


class Router:
    """Sends packets to the mux, and sees what the mux sends to it."""

    def __init__(self, lab: Lab) -> None:
        with lab.inside("mux1", lambda: opened("eth0")) as there:
            mux = there.getsockname()[4]
        self._socket = lab.inside("router", lambda: opened("to-mux1"))
        self._macs = mux + self._socket.getsockname()[4]

    def __enter__(self) -> "Router":
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def send(self, family: int, *packets: bytes) -> None:
        for packet in packets:
            self._socket.send(self._macs + (b"\x08\0" if family == 4 else b"\x86\xdd") + packet)

    def back(self, family: int, *packets: bytes) -> list[bytes]:
        """Destinations of these packets that the mux's kernel forwards; it always forwards one to elsewhere."""
        self.send(family, *packets, other(family))
        frames, at, end = list[bytes](), *((30, 34) if family == 4 else (38, 54))
        vip, last = (ip_address(text).packed for text in (VIPS[family], OTHERS[family]))
        while last not in frames:
            frame, origin = self._socket.recvfrom(65536)
            is_ours = origin[2] == socket.PACKET_HOST and is_marked(family, frame)
            if is_ours and frame[at:end] in (last, vip):
                frames.append(frame[at:end])
        return frames[:-1]


@pytest.fixture
def forwarding(lab: Lab) -> Iterator[None]:
    """The mux's kernel forwards."""

    def switch(value: str) -> None:
        for name in SYSCTLS:
            (Path("/proc/sys") / name).write_text(value)

    lab.inside("mux1", lambda: switch("1"))
    yield
    lab.inside("mux1", lambda: switch("0"))
    lab.inside("mux1", lambda: detach("eth0"))  # left by a mux that a failed test killed


@pytest.fixture
def router(lab: Lab, forwarding: None) -> Iterator[Router]:
    with Router(lab) as router:
        for family in (4, 6):  # until neighbours are resolved, and without a mux, the kernel forwards everything
            packets = taken(family)
            assert len(router.back(family, packets[0])) == 1
        yield router


def dropped(daemon: Daemon) -> int:
    state = ask(daemon.control, "runtime")["host_forwarding"]
    assert (state["vips_filtered"], state["reason"]) == (True, "")
    return int(state["dropped"])


@root
@pytest.mark.parametrize("driver", ["packet", "xdp"])
def test_the_kernel_forwards_nothing_that_the_mux_takes(lab: Lab, router: Router, driver: str) -> None:
    lab.write_config(configuration(*SERVICES))
    with running(lab, "mux1", "mux", "--driver", driver, "--detach-on-exit") as mux:
        for family in (4, 6):
            before, packets = dropped(mux), taken(family)
            assert router.back(family, *packets) == []
            assert dropped(mux) - before == len(packets) - (driver == "xdp"), "all that XDP does not send itself"
    assert len(router.back(4, taken(4)[0])) == 1, "gone with the mux"


@root
def test_it_follows_reloads(lab: Lab, router: Router) -> None:
    lab.write_config(configuration(SERVICES[0]))
    with running(lab, "mux1", "mux") as mux:
        assert router.back(4, taken(4)[1]) == []
        assert len(router.back(6, taken(6)[1])) == 1
        lab.write_config(configuration(SERVICES[1]))
        assert mux.reload().returncode == 0
        assert len(router.back(4, taken(4)[1])) == 1
        assert router.back(6, taken(6)[1]) == []


@root
def test_a_killed_mux_leaves_the_filter_only_if_its_program_forwards(lab: Lab, router: Router) -> None:
    lab.write_config(configuration(*SERVICES))
    with running(lab, "mux1", "mux") as mux:
        mux.end(signal.SIGKILL)
        assert len(router.back(4, taken(4)[0])) == 1
    try:
        with running(lab, "mux1", "mux", "--driver", "xdp", "--xdp-mode", "generic") as mux:
            mux.end(signal.SIGKILL)
            assert router.back(4, *taken(4)) == []
        lab.write_config(configuration(SERVICES[1]))
        with running(lab, "mux1", "mux", "--driver", "xdp", "--xdp-mode", "generic"):
            assert len(router.back(4, taken(4)[2])) == 1, "the filter of the previous process is adopted"
            assert router.back(6, *taken(6)) == []
    finally:
        lab.inside("mux1", lambda: detach("eth0"))
    assert len(router.back(6, taken(6)[0])) == 1


@root
def test_a_vip_that_is_the_hosts_own_address_still_reaches_it(lab: Lab, forwarding: None) -> None:
    lab.write_config(configuration(*SERVICES))

    def change(verb: str) -> None:
        with IPRoute() as ip:
            ip.addr(verb, index=ip.link_lookup(ifname="lo")[0], address=VIP, prefixlen=32)

    lab.inside("mux1", lambda: change("add"))
    try:
        with running(lab, "mux1", "mux") as mux, lab.inside("mux1", lambda: socket.create_server((VIP, 81))):
            lab.inside("client", lambda: socket.create_connection((VIP, 81), 2)).close()
            assert dropped(mux) == 0
    finally:
        lab.inside("mux1", lambda: change("del"))


class Forwards:
    """A stand-in for VipFilter that the kernel refuses."""

    def __init__(self, *_: object, **__: object) -> None:
        raise BpfError("attach to interface 2 (TCX_INGRESS)", errno.EINVAL)


@pytest.mark.parametrize(("families", "state"), [((4,), "IPv4"), ((4, 6), "IPv4 and IPv6"), ((), None)])
def test_a_start_says_where_it_cannot_be_ensured(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, families: tuple[int, ...], state: str | None
) -> None:
    monkeypatch.setattr(host_forwarding, "VipFilter", Forwards)
    monkeypatch.setattr(host_forwarding, "forwards", lambda interface, version: version in families)
    host = HostForwarding("eth0", outlives=False)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            asyncio.run(host.configure(Config.model_validate(configuration(*SERVICES))))
    messages = [record.getMessage() for record in caplog.records]
    expected = f"this host forwards {state} and will also forward packets for VIPs: attach to interface 2"
    assert [message.startswith(expected) for message in messages] == ([True] if state else [])
    assert host.describe().vips_filtered is False
    assert "Invalid argument" in host.describe().reason
