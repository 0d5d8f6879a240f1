"""Set-ups that are broken on purpose, one after another in one lab: each time a tool names the cause, and then no more.

A case breaks one thing, asks, and mends it; what is asked for is text that a person would look for.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP

from lbmux.addresses import mac_from_int
from lbmux.control.control_socket import ask, ask_list
from lbmux.control.offloads import set_features
from lbmux.frames.xdp import detach
from lbmux.lab import namespaces, processes
from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP, VIP6, ananta
from lbmux.tools.doctor.examine import examine
from lbmux.tools.doctor.finding import Finding
from lbmux.tools.doctor.situation import Role, Situation
from lbmux.tools.explain import explain_live
from lbmux.tools.packet import Packet

pytestmark = pytest.mark.root

SOON_S = 5.0
CLIENT = "198.51.100.2"
WEB = f"{CLIENT}:40000 > {VIP}:80/tcp"
WIRE = Path(__file__).with_name("wire.py")


@dataclass
class Broken:
    """The lab, and what the tools say in it."""

    lab: Lab
    plain: dict[str, Any] = field(default_factory=dict)

    def socket(self, node: str) -> Path:
        return self.lab.directory / f"{node}.sock"

    def command(self, node: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "lbmux.cli.main", *arguments]
        return self.lab.run(node, command, capture_output=True, text=True, timeout=30)

    def doctor(self, node: str, *peers: str, file: Path | None = None) -> "Diagnosis":
        """In a thread there, which is what `lbmux doctor` does, less a second of starting Python."""
        role: Role = {"mux": "mux", "host": "agent", "router": "router"}[self.lab.topology.node(node).role]  # type: ignore
        file = self.lab.config if role == "router" else file
        situation = Situation(role, self.socket(node), file, tuple(self.socket(peer) for peer in peers))
        return Diagnosis(self.lab.inside(node, lambda: list(examine(situation))))

    def sh(self, node: str, command: str) -> str:
        return str(self.lab.run(node, ["sh", "-ec", command], capture_output=True, text=True, check=True).stdout)

    def explain(self, packet: str, length: int | None = None, node: str = "mux1") -> str:
        found = explain_live(Packet.parse(packet, length=length), self.socket(node))
        return "\n".join([*(step.found for step in found.steps), found.mend])

    @contextlib.contextmanager
    def watched(self, command: str, *options: str, node: str = "mux1") -> "Iterator[subprocess.Popen[str]]":
        """`lbmux trace` or `capture` while packets come."""
        line = [sys.executable, "-m", "lbmux.cli.main", command, "--control", str(self.socket(node)), *options]
        process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None and "watching the" in process.stderr.readline()
            yield process
        finally:
            process.kill()
            process.communicate()

    def trace(self, filter: str, send: Callable[[], None]) -> str:
        """What `lbmux trace` says of one frame, of those that ``send`` sends."""
        with self.watched("trace", "-n", "1", filter) as process:
            send()
            return process.communicate(timeout=30)[0]

    def syns(self, destination: str, length: int = 40) -> None:
        """Of so many flows that each mux has some of them."""

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
                for port in range(50000, 50032):
                    packet = IP(src=CLIENT, dst=destination) / TCP(sport=port, dport=80, flags="S")
                    sock.sendto(bytes(packet / bytes(length - len(packet))), (destination, 0))

        self.lab.inside("client", send)

    def mac(self, node: str) -> str:
        return mac_from_int(self.lab.inside(node, lambda: namespaces.link_mac("eth0")))

    def reload(self, *nodes: str) -> None:
        for node in nodes:
            ask(self.socket(node), "reload")

    @contextlib.contextmanager
    def config(self, change: Callable[[dict[str, Any]], None], *nodes: str) -> Iterator[None]:
        """Another configuration in these nodes only: the file is the old one again while it lasts."""
        other = json.loads(json.dumps(self.plain))
        change(other)
        try:
            self.lab.write_config(other)
            self.reload(*nodes)
            self.lab.write_config(self.plain)
            yield
        finally:
            self.lab.write_config(self.plain)
            self.reload(*nodes)

    @contextlib.contextmanager
    def without(self, node: str, program: str) -> Iterator[None]:
        """One program of a node stopped, and started again."""
        processes.end([self.lab.process(node, program)])
        try:
            yield
        finally:
            known = self.lab.topology.node(node)
            self.lab.start(known, next(one for one in known.programs if one.name == program))

    @contextlib.contextmanager
    def changed(self, node: str, breaks: str, mends: str) -> Iterator[None]:
        try:
            self.sh(node, breaks)
            yield
        finally:
            self.sh(node, mends)

    @contextlib.contextmanager
    def offload(self, node: str, interface: str, **wanted: bool) -> Iterator[None]:
        before = self.lab.inside(node, lambda: set_features(interface, wanted))
        try:
            yield
        finally:
            self.lab.inside(node, lambda: set_features(interface, before))

    @contextlib.contextmanager
    def sysctl(self, node: str, name: str, value: str) -> Iterator[None]:
        before = self.sh(node, f"sysctl -n {name}").strip()
        with self.changed(node, f"sysctl -q {name}={value}", f"sysctl -q {name}={before}"):
            yield


@dataclass
class Diagnosis:
    findings: list[Finding]

    def says(self, check: str, text: str, state: str = "fault") -> bool:
        """Whether a check found this, and said how to mend it."""
        return any(
            (finding.check, finding.state) == (check, state) and text in finding.seen and finding.mend != ""
            for finding in self.findings
        )

    @property
    def faults(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.state == "fault"]


def until(test: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not test():
        assert time.monotonic() < deadline
        time.sleep(0.02)


Pools = Callable[[str], Broken]


@pytest.fixture(scope="module")
def pools() -> Iterator[Pools]:
    """A lab by its driver; none before it is asked for."""
    plain, made = ananta(), dict[str, Broken]()
    with contextlib.ExitStack() as stack:

        def pool(driver: str) -> Broken:
            if driver not in made:
                # A flow table so small that a test can fill it.
                topology = replace(plain, config=plain.config | {"flows": {"limit": 1024}})
                lab = Lab(topology, f"{driver[0]}broken{os.getpid()}", driver)
                stack.callback(lab.down)
                lab.up()
                made[driver] = Broken(lab, lab.config_in_force)
            return made[driver]

        yield pool


@pytest.fixture(scope="module")
def pool(pools: Pools) -> Broken:
    """Muxes and agents in user space."""
    return pools("packet")


@pytest.fixture(scope="module")
def kernel(pools: Pools) -> Broken:
    return pools("xdp")


@pytest.fixture(scope="module", params=["packet", "xdp"])
def either(pools: Pools, request: pytest.FixtureRequest) -> Broken:
    return pools(request.param)


def test_a_sound_lab_has_no_fault(either: Broken) -> None:
    for node in ("mux1", "host1", "host3", "router"):
        found = either.doctor(node)
        assert found.faults == [], node
    assert either.doctor("mux1", "mux2").faults == []


def test_from_outside_the_doctor_goes_to_where_the_daemon_is(pool: Broken) -> None:
    command = [sys.executable, "-m", "lbmux.cli.main", "doctor", "--control", str(pool.socket("mux1")), "-j"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    findings = json.loads(ran.stdout)["findings"]
    assert (ran.returncode, [one for one in findings if one["state"] == "fault"]) == (0, [])
    assert "looked at from there" in findings[0]["seen"]
    assert all("looked at from there" not in one.seen for one in pool.doctor("mux1").findings)


def test_the_command_prints_a_table_or_json_and_exits_by_what_it_found(pool: Broken) -> None:
    asked = ("doctor", "--control", str(pool.socket("host1")))
    fine = pool.command("host1", *asked, "-j")
    assert (fine.returncode, json.loads(fine.stdout)["role"]) == (0, "agent")
    with pool.offload("host1", "eth0", gro=True):
        broken = pool.command("host1", *asked, "--quiet")
    assert broken.returncode == 1
    assert "gro on at eth0" in broken.stdout and "to mend it: ethtool -K eth0 gro off" in broken.stdout
    assert "\nok " not in broken.stdout


def test_wrong_mac(either: Broken) -> None:
    with either.changed(
        "mux1",
        "ip neighbour replace 10.0.1.1 lladdr 02:00:00:00:00:99 dev eth0 nud noarp",
        "ip neighbour del 10.0.1.1 dev eth0",
    ):
        until(lambda: "02:00:00:00:00:99" in either.explain(WEB))
        assert either.doctor("mux1").says("next hop", "wrong MAC: frames for host 10.1.1.2 go to 02:00:00:00:00:99")


def test_wrong_mac_of_ipv6(pool: Broken) -> None:
    with pool.changed(
        "mux1",
        "ip neighbour replace 2001:db8:0:1::1 lladdr 02:00:00:00:00:99 dev eth0 nud noarp",
        "ip neighbour del 2001:db8:0:1::1 dev eth0",
    ):
        known = pool.socket("mux1")
        until(lambda: "02:00:00:00:00:99" in {line["mac"] for line in ask_list(known, "neighbours")})
        seen = "wrong MAC: frames for host 2001:db8:1:1::2 go to 02:00:00:00:00:99"
        assert pool.doctor("mux1").says("next hop", seen)


def test_no_route(either: Broken) -> None:
    with either.changed("mux1", "ip route del default", "ip route add default via 10.0.1.1"):
        until(lambda: "MAC address is not known" in either.explain(WEB))
        assert either.doctor("mux1").says("next hop", "no route to host 10.1.1.2")


def test_vip_not_configured(either: Broken) -> None:
    assert "no service has the VIP 192.0.2.77" in either.explain("198.51.100.2:40000 > 192.0.2.77:80/tcp")
    with either.changed("router", "ip route add 192.0.2.77 via 10.0.1.2", "ip route del 192.0.2.77"):
        said = either.trace("dst host 192.0.2.77", lambda: either.syns("192.0.2.77"))
    assert "verdict       not_vip (pass)" in said and "no service has the VIP 192.0.2.77" in said


def test_backend_down(either: Broken) -> None:
    up = "ip link set to-host2 up; ip address replace 2001:db8:1:2::1/64 dev to-host2"  # IPv6 forgets it
    with either.changed("router", "ip link set to-host2 down", up):
        assert either.doctor("mux1").says("backend", "web/h2 at 10.1.2.2: backend down: ")


def test_agent_not_running(either: Broken) -> None:
    with either.without("host1", "agent"):
        assert either.doctor("host1").says("daemon", "nothing listens there: is the daemon running?")
        either.lab.inside("host1", lambda: detach("eth0"))  # in the kernel all goes on without it
        found = either.doctor("mux1")
        assert found.says("backend", "web/h1 at 10.1.1.2: agent not running")
        assert found.says("backend", "web6/h1 at 2001:db8:1:1::2: agent not running")


def test_mtu(either: Broken) -> None:
    with either.changed("router", "ip link set to-host1 mtu 1400", "ip link set to-host1 mtu 1500"):
        found = either.doctor("mux1")
        assert found.says("MTU", "MTU to host 10.1.1.2 is 1400, says 10.0.1.1")
        assert found.says("MTU", "MTU to host 2001:db8:1:1::2 is 1400, says 2001:db8:0:1::1")
    either.sh("mux1", "ip route flush cache; ip -6 route flush cache")


def test_strict_reverse_path_filter(either: Broken) -> None:
    with either.sysctl("router", "net.ipv4.conf.to-host1.rp_filter", "1"):
        assert either.doctor("router").says("rp_filter", "strict on to-host1")
        assert either.doctor("mux1").says("backend", "web/h1 at 10.1.1.2: no answer through the tunnel")


@pytest.mark.parametrize(
    ("kind", "name", "refused"),
    [
        ("gue1", "GUE", "port unreachable"),
        ("gre", "GRE", "protocol unreachable"),
        ("geneve", "Geneve", "port unreachable"),
    ],
)
def test_a_narrow_way_and_no_agent_by_other_tunnels(
    pool: Broken, tmp_path: Path, kind: str, name: str, refused: str
) -> None:
    path = tmp_path / "services.yaml"
    path.write_text(json.dumps(pool.plain | {"tunnel": {"kind": kind}}))
    sound = pool.doctor("mux1", file=path)
    assert not sound.faults
    hosts = ("10.1.1.2", "2001:db8:1:1::2", "10.1.2.2", "10.1.3.2", "2001:db8:1:3::2")
    fine = {one.seen for one in sound.findings if (one.check, one.state) == ("MTU", "ok")}
    assert fine == {f"1500 bytes reach host {host}, tunnel included ({name})" for host in hosts}
    with (
        pool.changed("router", "ip link set to-host2 mtu 1400", "ip link set to-host2 mtu 1500"),
        pool.without("host1", "agent"),
    ):
        found = pool.doctor("mux1", file=path)
    seen = f"web/h1 at 10.1.1.2: agent not running: the host answers {refused} to {name}"
    assert found.says("backend", seen) and found.says("MTU", "MTU to host 10.1.2.2 is 1400, says 10.0.1.1")
    pool.sh("mux1", "ip route flush cache; ip -6 route flush cache")


def test_services_of_udp(pool: Broken, tmp_path: Path) -> None:
    """The first host's server answers, the second has none, the third's says nothing, as it may."""
    path = tmp_path / "services.yaml"

    def with_datagrams(config: dict[str, Any]) -> None:
        backends = [{"name": f"h{n}", "dip": f"10.1.{n}.2", "port": 53} for n in (1, 2, 3)]
        config["services"].append({"name": "dns", "vip": VIP, "protocol": "udp", "port": 53, "backends": backends})
        path.write_text(json.dumps(config))

    def bound(address: str) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((address, 53))
        sock.settimeout(10)
        return sock

    with (
        pool.lab.inside("host1", lambda: bound("10.1.1.2")) as answering,
        pool.lab.inside("host3", lambda: bound(VIP)),
        pool.config(with_datagrams, "host1", "host2", "host3"),
        ThreadPoolExecutor(1) as threads,
    ):
        threads.submit(lambda: [answering.sendto(b"x", answering.recvfrom(2048)[1]) for _ in range(2)])
        found = pool.doctor("mux1", file=path)
        assert found.says("backend", "dns/h2 at 10.1.2.2: port closed")
        assert found.says("backend", "dns/h3 at 10.1.3.2: a datagram went out by IP in IP, and nobody", "unchecked")
        assert "dns/h1 at 10.1.1.2 answers through the tunnel" in {one.seen for one in found.findings}


def test_port_closed(pool: Broken) -> None:
    with pool.without("host1", "server"):
        assert pool.doctor("mux1").says("backend", "web/h1 at 10.1.1.2: port closed")


def test_a_mux_that_the_agents_do_not_know(pool: Broken) -> None:
    with pool.config(lambda config: config.update(muxes=["10.0.2.2"]), "host1"):
        assert pool.doctor("mux1").says("backend", "web/h1 at 10.1.1.2: no answer through the tunnel")
        assert pool.doctor("host1").says("not_a_mux", "packets were tunnelled, but from none of the muxes")


def test_two_muxes_with_different_configurations(pool: Broken) -> None:
    def heavier(config: dict[str, Any]) -> None:
        config["services"][0]["backends"][0]["weight"] = 7

    with pool.config(heavier, "mux1"):
        found = pool.doctor("mux1", "mux2")
        assert found.says("pool", "mux2.sock: other tables than here: web (192.0.2.1 tcp 80)")
        assert found.says("in force", "service web: backend h1 changed", "warning")


def test_a_peer_that_does_not_answer(pool: Broken) -> None:
    assert pool.doctor("mux1", "mux9").says("pool", "mux9.sock: nothing listens there", "warning")


def test_control_socket_gone(pool: Broken) -> None:
    path = pool.socket("mux2")
    with pool.changed("mux2", f"mv {path} {path}.away", f"mv {path}.away {path}"):
        assert pool.doctor("mux2").says("daemon", "nothing listens there: is the daemon running?")


def test_joined_frames(pool: Broken) -> None:
    with pool.offload("mux1", "eth0", gro=True):
        assert pool.doctor("mux1").says("offloads", "gro on at eth0")


def test_checksums_that_a_card_should_finish(pool: Broken) -> None:
    with pool.offload("router", "to-mux1", tx=True):
        assert pool.doctor("router").says("checksums", "tx offload is on at the veth to-mux1", "warning")


def test_checksums_that_nobody_finished(kernel: Broken) -> None:
    """A program in the kernel cannot know of them, so that connections stay open in vain; the hosts see it."""

    def connects() -> bool:
        def connect() -> bool:
            with contextlib.suppress(TimeoutError), socket.create_connection((VIP, 80), 0.5):
                return True
            return False

        return kernel.lab.inside("client", connect)

    def told() -> set[str]:
        found = [kernel.doctor(host) for host in ("host1", "host2", "host3")]
        return {one.seen for each in found for one in each.findings if one.check == "checksums"}

    before = told()
    assert connects() and told() == before
    with kernel.offload("router", "to-mux1", tx=True), kernel.offload("router", "to-mux2", tx=True):
        assert not connects()
        (seen,) = told() - before
        assert "packets came with a wrong checksum and were dropped" in seen
        assert kernel.doctor("router").says("checksums", "tx offload is on at the veth to-mux1, to-mux2", "warning")


def test_a_router_that_hashes_addresses_only(pool: Broken) -> None:
    with pool.sysctl("router", "net.ipv4.fib_multipath_hash_policy", "0"):
        assert pool.doctor("router").says("hash policy", "ports do not count")


def test_a_router_that_does_not_spread(pool: Broken) -> None:
    both = f"ip route replace {VIP} nexthop via 10.0.1.2 nexthop via 10.0.2.2"
    with pool.changed("router", f"ip route replace {VIP} via 10.0.1.2", both):
        assert pool.doctor("router").says("spread", "none of it to 10.0.2.2", "warning")
    with pool.changed("router", f"ip route replace {VIP} via 10.1.1.2", both):
        assert pool.doctor("router").says("spread", "10.1.1.2, which is none of the muxes")
    with pool.changed("router", f"ip route del {VIP}", both):
        assert pool.doctor("router").says("spread", f"no route to the VIP {VIP}")


def test_a_router_that_does_not_forward(pool: Broken) -> None:
    with pool.sysctl("router", "net.ipv4.ip_forward", "0"):
        assert pool.doctor("router").says("forwarding", "this router forwards nothing")


def test_a_mux_whose_kernel_forwards(pool: Broken) -> None:
    with pool.sysctl("mux1", "net.ipv4.ip_forward", "1"):
        assert pool.doctor("mux1").says("forwarding", "sent back to the router", "warning")


def test_the_vip_on_a_mux(pool: Broken) -> None:
    with pool.changed("mux1", f"ip address add {VIP}/32 dev lo", f"ip address del {VIP}/32 dev lo"):
        assert pool.doctor("mux1").says("VIP", f"this mux has the VIP {VIP} itself")


def test_mode_local_without_the_vip(pool: Broken) -> None:
    with pool.changed("host3", f"ip address del {VIP}/32 dev lo", f"ip address add {VIP}/32 dev lo"):
        assert pool.doctor("host3").says("VIP", f"mode local, but {VIP} is no address of this host")


def test_a_host_that_answers_arp_for_the_vip(pool: Broken) -> None:
    mac = pool.mac("host3")
    with pool.sysctl("host3", "net.ipv4.conf.all.arp_ignore", "0"):
        assert pool.doctor("host3").says("VIP by ARP", "this host claims the VIP by ARP")
        assert pool.doctor("router").says("VIP by ARP", f"{mac} on to-host3 answers ARP for the VIP {VIP}")


def test_a_host_that_answers_neighbour_discovery_for_the_vip(pool: Broken) -> None:
    mac, move = pool.mac("host3"), f"ip -6 address {{}} {VIP6}/128 dev {{}}"
    assert not pool.doctor("router").faults
    with pool.changed("host3", move.format("add", "eth0"), move.format("del", "eth0")):
        assert pool.doctor("host3").says("VIP on link", f"{VIP6} is an address of eth0: this host claims the VIP")
        seen = f"{mac} on to-host3 answers neighbour discovery for the VIP {VIP6}"
        assert pool.doctor("router").says("VIP on link", seen)


def test_a_backend_that_replies_through_the_mux(pool: Broken) -> None:
    with pool.changed(
        "host1",
        "ip route replace default via 10.0.1.2 dev eth0 onlink",
        "ip route replace default via 10.1.1.1 advmss 1440",
    ):
        assert pool.doctor("host1").says("replies", "by 10.0.1.2, a mux")


def test_no_backend_takes_new_flows(pool: Broken) -> None:
    def empty(config: dict[str, Any]) -> None:
        config["services"][0]["backends"] = []

    with pool.config(empty, "mux1"):
        assert "add a backend, by the file or `lbmux add`: h1, h2, h3 only stay" in pool.explain(WEB)


def test_weight_0_everywhere(pool: Broken, tmp_path: Path) -> None:
    backends = [{"dip": f"10.1.{n}.2", "weight": 0} for n in (1, 2)]
    service = {"name": "web", "vip": VIP, "protocol": "tcp", "port": 80, "backends": backends}
    path = tmp_path / "services.yaml"
    path.write_text(json.dumps({"services": [service]}))  # which is YAML, too
    assert pool.doctor("mux1", file=path).says("configuration", "at least one backend should have a weight above 0")


def test_a_denied_client(either: Broken) -> None:
    def deny(config: dict[str, Any]) -> None:
        config["services"][0]["deny"] = ["198.51.100.0/24"]

    with either.config(deny, "mux1"):
        assert "198.51.100.2 is denied, by 198.51.100.0/24 of `deny`" in either.explain(WEB)
        said = either.trace("drop", lambda: either.syns(VIP))
        assert "verdict       denied (drop), web" in said and "to mend it" in said


def test_a_capture_says_why_a_packet_was_dropped(pool: Broken, tmp_path: Path) -> None:
    def deny(config: dict[str, Any]) -> None:
        config["services"][0]["allow"] = ["203.0.113.0/24"]

    path = tmp_path / "drops.pcapng"
    with pool.config(deny, "mux1"), pool.watched("capture", "--at", "drop", "-n", "1", "-w", str(path)) as process:
        pool.syns(VIP)
        assert "1 packets in" in process.communicate(timeout=30)[0]
    assert b"drop: verdict denied (drop), service web" in path.read_bytes()


def test_a_packet_too_long_for_the_tunnel(pool: Broken) -> None:
    assert "offer clients a smaller MSS" in pool.explain(WEB, length=1500)


def test_short_frames(pool: Broken) -> None:
    mac = bytes.fromhex(pool.mac("mux1").replace(":", ""))

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"\x45" + bytes(9), ("to-mux1", 0x0800, 0, 0, mac))

    pool.lab.inside("router", send)
    until(lambda: pool.doctor("mux1").says("truncated", "end within a header", "warning"))


def test_a_full_flow_table(either: Broken) -> None:
    either.lab.run("client", [sys.executable, str(WIRE), "flows", VIP, "80", "6000", "1"], check=True)
    until(lambda: either.doctor("mux1").says("flow table", "full, or was", "warning"))


def test_a_backend_that_was_taken_out_by_command(pool: Broken) -> None:
    ask(pool.socket("mux1"), "order", backend="h1", order="disable", service="web")
    try:
        found = pool.doctor("mux1")
        assert "h1 is disabled: by command" in pool.explain(WEB)
        assert found.says("health", "web/h1 is disabled: by command", "warning")
        assert ("in force", "ok") in {(one.check, one.state) for one in found.findings}
    finally:
        ask(pool.socket("mux1"), "order", backend="h1", order=None, service="web")


def test_a_backend_that_fails_its_probes(pool: Broken) -> None:
    def probed(config: dict[str, Any]) -> None:
        config["services"][0]["health"] = {"interval_s": 0.1, "timeout_s": 0.1, "fall": 2}

    with pool.config(probed, "mux1"), pool.without("host1", "server"):
        until(lambda: pool.doctor("mux1").says("health", "web/h1 is down"))
        assert "h1 is down: " in pool.explain(WEB)
