"""The mux as a process, between real namespaces."""

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether

from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import set_route
from lbmux.lab.topology import Route
from lbmux.linux.offloads import features, set_features
from tests.api.asking import ask
from tests.daemons.running_daemons import (
    PROBE_PORT,
    Daemon,
    Wire,
    by_backend,
    configuration,
    rewrite,
    running,
    send,
    service,
)

pytestmark = pytest.mark.root

CLIENT, VIP = "198.51.100.2", "192.0.2.1"
H1, H2, H3 = ({"name": f"h{n}", "dip": f"10.1.{n}.2", "port": 8080} for n in (1, 2, 3))
PORTS = range(40000, 40040)
HEAVY = 50
REACHABLE = 2


def syn(source_port: int, port: int = 80, **ip: Any) -> bytes:
    return bytes(IP(src=CLIENT, dst=VIP, **ip) / TCP(sport=source_port, dport=port, flags="S"))


@pytest.fixture
def wires(lab: Lab) -> Iterator[dict[str, Wire]]:
    wires = {f"host{n}": Wire(lab, f"host{n}") for n in (1, 2, 3)}
    yield wires
    for wire in wires.values():
        wire.socket.close()


def lasting(*services: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration in which flows of one SYN outlive a reload on a busy machine."""
    return configuration(*services) | {"idle": {"untrusted_s": 600}}


def place(lab: Lab, wires: dict[str, Wire], ports: range = PORTS) -> dict[int, str]:
    """Return the host that a packet of each flow goes to."""
    send(lab, "client", *(syn(port) for port in ports))
    backends = by_backend(wires, ports)
    assert sorted(backends) == list(ports), "not every flow came through"
    assert all(len(nodes) == 1 for nodes in backends.values())
    return {port: nodes[0] for port, nodes in backends.items()}


@pytest.mark.parametrize("transport", [TCP(sport=4000, dport=80) / b"hello", UDP(sport=4000, dport=53) / b"hello"])
@pytest.mark.parametrize(("tos", "flags"), [(0, "DF"), (0xB9, 0)])
def test_forwards_inside_ipip(lab: Lab, wires: dict[str, Wire], transport: Any, tos: int, flags: Any) -> None:
    lab.write_config(
        configuration(
            service("web", 80, [H1]), service("dns", 53, [H1 | {"port": 5353}], protocol="udp")
        )
    )  # fmt: skip
    with running(lab, "mux1", "mux"):
        packet = IP(bytes(IP(src=CLIENT, dst=VIP, tos=tos, flags=flags, ttl=20) / transport))
        send(lab, "client", bytes(packet))
        (frame,) = wires["host1"].frames(1, tunnelled_from=4000)
    outer = IP(frame[14:])
    assert (outer.src, outer.dst, outer.proto, outer.tos) == ("10.0.1.2", "10.1.1.2", 4, tos)
    assert outer.flags == packet.flags
    assert outer.ttl == 63, "64, less the router's one"
    assert outer.len == 20 + len(packet)
    inner = outer.payload
    assert inner.ttl == 18, "20, less the router's one and the mux's"
    for header in (outer, inner):
        said = header.chksum
        del header.chksum
        assert IP(bytes(header)).chksum == said
    packet.ttl = inner.ttl
    del packet.chksum
    assert bytes(packet) == bytes(inner)


def test_the_outer_source_is_the_configured_one(lab: Lab, wires: dict[str, Wire]) -> None:
    lab.write_config(configuration(service("web", 80, [H1])))
    with running(lab, "mux1", "mux", "--address", "10.0.1.99"):
        send(lab, "client", syn(4000))
        (frame,) = wires["host1"].frames(1, tunnelled_from=4000)
    assert IP(frame[14:]).src == "10.0.1.99"


def test_leaves_other_traffic_to_the_kernel(lab: Lab, wires: dict[str, Wire]) -> None:
    lab.write_config(configuration(service("web", 80, [H1])))
    with running(lab, "mux1", "mux"):
        server = lab.inside("mux1", lambda: socket.create_server(("10.0.1.2", 80)))
        client = lab.inside("client", lambda: socket.create_connection(("10.0.1.2", 80), 2))
        with server, client, server.accept()[0] as accepted:
            client.sendall(b"to the mux itself")
            assert accepted.recv(100) == b"to the mux itself"
        send(lab, "client", syn(4000, port=81))
        assert [frame for frame in wires["host1"].frames(1, 0.3) if frame[23] == socket.IPPROTO_IPIP] == []


@pytest.mark.parametrize("how", ["command", "SIGHUP"])
def test_a_good_reload_moves_new_flows_and_keeps_old_ones(lab: Lab, wires: dict[str, Wire], how: str) -> None:
    lab.write_config(lasting(service("web", 80, [H1, H2])))
    with running(lab, "mux1", "mux") as mux:
        before = place(lab, wires)
        assert place(lab, wires) == before
        assert set(before.values()) == {"host1", "host2"}
        lab.write_config(lasting(service("web", 80, [H1, H2, H3 | {"weight": HEAVY}])))
        if how == "command":
            ran = mux.reload()
            assert (ran.returncode, ran.stdout) == (0, f"{mux.control}: service web: backend h3 added\n")
        else:
            mux.tell(signal.SIGHUP)
            mux.wait_for("in force: service web: backend h3 added")
        after = place(lab, wires)
        assert after == before, (mux.log, ask(mux.control, "counters"))
        fresh = place(lab, wires, range(50000, 50040))
        assert list(fresh.values()).count("host3") > len(fresh) / 2


def test_flows_of_a_removed_backend_stay_and_new_ones_go_to_others(lab: Lab, wires: dict[str, Wire]) -> None:
    lab.write_config(lasting(service("web", 80, [H1, H2, H3])))
    with running(lab, "mux1", "mux") as mux:
        before = place(lab, wires)
        assert place(lab, wires) == before
        lab.write_config(lasting(service("web", 80, [H1, H3])))
        assert mux.reload().returncode == 0
        assert place(lab, wires) == before
        fresh = place(lab, wires, range(50000, 50040))
    assert set(before.values()) == {"host1", "host2", "host3"}
    assert set(fresh.values()) == {"host1", "host3"}


def test_only_flows_of_a_backend_removed_at_once_move(lab: Lab, wires: dict[str, Wire]) -> None:
    lab.write_config(lasting(service("web", 80, [H1, H2, H3], on_down="rehash")))
    with running(lab, "mux1", "mux") as mux:
        before = place(lab, wires)
        lab.write_config(lasting(service("web", 80, [H1, H3], on_down="rehash")))
        assert mux.reload().returncode == 0
        ask(mux.control, "override", backend="h2", override="disable")
        after = place(lab, wires)
    assert set(before.values()) == {"host1", "host2", "host3"}
    assert set(after.values()) == {"host1", "host3"}
    assert {port for port in PORTS if before[port] != after[port]} == {p for p in PORTS if before[p] == "host2"}


@pytest.mark.parametrize("how", ["command", "SIGHUP"])
def test_a_bad_reload_changes_nothing_and_names_file_and_line(lab: Lab, wires: dict[str, Wire], how: str) -> None:
    lab.write_config(lasting(service("web", 80, [H1, H2])))
    with running(lab, "mux1", "mux") as mux:
        before = place(lab, wires)
        rewrite(lab.config, "vip: 192.0.2.1", "vip: 192.0.2.321")
        line = next(n for n, text in enumerate(lab.config.read_text().splitlines(), 1) if "192.0.2.321" in text)
        reason = f"{lab.config}:{line}: services[0].vip: "
        if how == "command":
            ran = mux.reload()
            assert ran.returncode == 1
            assert reason in ran.stderr
        else:
            mux.tell(signal.SIGHUP)
            mux.wait_for("the running one stays in force")
            assert reason in mux.log
        assert place(lab, wires) == before
        rewrite(lab.config, "vip: 192.0.2.321", "vip: 192.0.2.1")
        assert mux.reload().stdout == f"{mux.control}: nothing changed\n"


def test_sigterm_ends_it_well(lab: Lab) -> None:
    lab.write_config(configuration(service("web", 80, [H1])))
    with running(lab, "mux1", "mux") as mux:
        assert mux.end() == 0
        assert mux.log.endswith("stopped\n")
        assert not mux.control.exists()


def test_sigterm_ends_it_under_a_flood(lab: Lab, wires: dict[str, Wire]) -> None:
    lab.write_config(configuration(service("web", 80, [H1])))
    flood = (
        "import socket, sys\n"
        "sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)\n"
        "packet = bytes.fromhex(sys.argv[1])\n"
        "print(flush=True)\n"
        "for _ in range(1_500_000): sock.sendto(packet, ('192.0.2.1', 0))\n"
    )
    with running(lab, "mux1", "mux") as mux:
        sender = lab.popen("client", [sys.executable, "-c", flood, syn(4000).hex()], stdout=subprocess.PIPE)
        try:
            assert sender.stdout is not None
            sender.stdout.readline()
            assert len(wires["host1"].frames(1000)) == 1000
            assert mux.end() == 0
            assert sender.poll() is None, "the flood was over too soon to show anything"
        finally:
            sender.kill()
            sender.communicate()


def failed(daemon: Daemon) -> str:
    """The one line of a daemon that cannot start."""
    assert daemon.process.wait(30) == 1, daemon.log
    assert daemon.log.count("\n") == 1, daemon.log
    return daemon.log


PROGRAMS = pytest.mark.parametrize("program", ["mux", "agent"])


@PROGRAMS
def test_an_unknown_interface_is_one_line(lab: Lab, program: str) -> None:
    lab.write_config(configuration(service("web", 80, [H1])))
    assert failed(Daemon(lab, "mux1", program, "-i", "eth9")).startswith("lbmux: interface eth9: ")


@PROGRAMS
def test_an_unreadable_configuration_is_one_line(lab: Lab, program: str) -> None:
    said = failed(Daemon(lab, "mux1", program, "-c", "/nowhere/lbmux.yaml"))
    assert said.startswith("lbmux: /nowhere/lbmux.yaml: ")


@PROGRAMS
@pytest.mark.parametrize(
    ("setpriv", "capability"),
    [(("--bounding-set", "-net_raw"), "CAP_NET_RAW"), (("--bounding-set", "-all"), "CAP_NET_")],
)
def test_a_missing_capability_is_one_line(lab: Lab, program: str, setpriv: tuple[str, ...], capability: str) -> None:
    lab.write_config(configuration(service("web", 80, [H1])))
    lab.inside("mux1", lambda: set_features("eth0", {"gro": True}))
    try:
        said = failed(Daemon(lab, "mux1", program, prefix=("setpriv", *setpriv)))
        assert said.startswith("lbmux: ") and capability in said, said
        assert lab.inside("mux1", lambda: features("eth0"))["gro"]
    finally:
        lab.inside("mux1", lambda: set_features("eth0", {"gro": False}))


@PROGRAMS
@pytest.mark.parametrize("gro", [True, False])
def test_super_frames_are_off_while_it_runs_and_put_back(lab: Lab, program: str, gro: bool) -> None:
    lab.write_config(configuration(service("web", 80, [H1])))
    lab.inside("mux1", lambda: set_features("eth0", {"gro": gro}))
    try:
        before = lab.inside("mux1", lambda: features("eth0"))
        with running(lab, "mux1", program) as daemon:
            assert lab.inside("mux1", lambda: features("eth0")) == before | {"gro": False}
            daemon.end()
        assert lab.inside("mux1", lambda: features("eth0")) == before
    finally:
        lab.inside("mux1", lambda: set_features("eth0", {"gro": False}))


NEIGHBOURS = {80: ("10.0.1.77", "02:00:00:00:00:77"), 81: ("10.0.1.88", "02:00:00:00:00:88")}
"""Backends on the mux's own link, by service, that answer no ARP request until the test does it for them."""


class Link:
    """The router's end of the mux's link, where tests play neighbours."""

    def __init__(self, lab: Lab) -> None:
        def open_at(interface: str) -> socket.socket:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0: no frames until bind
            sock.bind((interface, 0x0003))
            return sock

        self._socket = lab.inside("router", lambda: open_at("to-mux1"))
        with lab.inside("mux1", lambda: open_at("eth0")) as own:
            self._mux_mac = ":".join(f"{byte:02x}" for byte in own.getsockname()[4])

    def close(self) -> None:
        self._socket.close()

    def answer(self, address: str, mac: str) -> None:
        """An ARP reply."""
        arp = ARP(op=2, hwsrc=mac, psrc=address, hwdst=self._mux_mac, pdst="10.0.1.2")
        self._socket.send(bytes(Ether(src=mac, dst=self._mux_mac) / arp))

    def tunnelled(self, source_port: int | None = None) -> Any:
        """Return the next tunnelled frame of that TCP port, or None.

        Earlier connections may still be closing. Probes of hosts are skipped.
        """
        self._socket.settimeout(0.4)
        try:
            while frame := Ether(self._socket.recv(65536)):
                is_probe = TCP in frame and frame[TCP].dport == int.from_bytes(PROBE_PORT)
                is_tunnelled = IP in frame and frame[IP].proto == socket.IPPROTO_IPIP and not is_probe
                if is_tunnelled and (source_port is None or (TCP in frame and frame[TCP].sport == source_port)):
                    return frame
        except TimeoutError:
            pass
        return None


@pytest.fixture
def link(lab: Lab) -> Iterator[Link]:
    lab.inside("mux1", forget_neighbours)
    link = Link(lab)
    yield link
    link.close()


def forget_neighbours() -> None:
    with IPRoute() as ip:
        for address, _ in NEIGHBOURS.values():
            with contextlib.suppress(NetlinkError):
                ip.neigh("del", dst=address, ifindex=ip.link_lookup(ifname="eth0")[0])


def test_frames_wait_until_their_neighbours_mac_is_known(lab: Lab, link: Link) -> None:
    services = (service(f"s{port}", port, [{"dip": address}]) for port, (address, _) in NEIGHBOURS.items())
    lab.write_config(configuration(*services))
    with running(lab, "mux1", "mux") as mux:
        send(lab, "client", *(syn(4000, port=port) for port in NEIGHBOURS))
        assert link.tunnelled() is None
        for port, (address, mac) in NEIGHBOURS.items():
            link.answer(address, mac)
            frame = link.tunnelled()
            assert frame is not None, mux.log
            assert (frame.dst, frame[IP].dst, frame[TCP].dport) == (mac, address, port)
        left = link.tunnelled()  # at most an earlier test's connection that is still closing
        assert left is None or left[TCP].flags != "S"


def test_an_unfinished_checksum_is_right_also_after_a_wait(lab: Lab, link: Link) -> None:
    address, mac = NEIGHBOURS[80]
    lab.write_config(configuration(service("dns", 53, [{"dip": address}], protocol="udp")))
    lab.inside("router", lambda: set_features("to-mux1", {"tx": True}))
    try:
        client = lab.inside("client", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with running(lab, "mux1", "mux"), client:
            client.sendto(b"first, which waits", (VIP, 53))
            link.answer(address, mac)
            waited = link.tunnelled()
            client.sendto(b"second", (VIP, 53))
            second = link.tunnelled()
        for frame, payload in ((waited, b"first, which waits"), (second, b"second")):
            inner = frame[IP].payload
            assert bytes(inner[UDP].payload) == payload
            said = inner[UDP].chksum
            del inner[UDP].chksum
            assert IP(bytes(inner))[UDP].chksum == said
    finally:
        lab.inside("router", lambda: set_features("to-mux1", {"tx": False}))


def test_a_neighbour_that_moves_is_followed(lab: Lab, link: Link) -> None:
    address, mac = NEIGHBOURS[80]
    lab.write_config(configuration(service("web", 80, [{"dip": address}])))
    with running(lab, "mux1", "mux") as mux:
        for number, hardware in enumerate((mac, "02:00:00:00:00:99"), 1):
            lab.inside("mux1", lambda hardware=hardware: set_neighbour(address, hardware))  # type: ignore[misc]
            mux.wait_for(f"next hop of {address}: {hardware}")
            send(lab, "client", syn(4000 + number))
            assert link.tunnelled(4000 + number).dst == hardware


def set_neighbour(address: str, mac: str) -> None:
    with IPRoute() as ip:
        ip.neigh("replace", dst=address, lladdr=mac, ifindex=ip.link_lookup(ifname="eth0")[0], state=REACHABLE)


def test_a_route_that_changes_is_followed(lab: Lab, link: Link) -> None:
    lab.write_config(configuration(service("web", 80, [H1])))
    (address, mac), via = NEIGHBOURS[80], Route("10.1.1.0/24", (NEIGHBOURS[80][0],))
    with running(lab, "mux1", "mux") as mux:
        lab.inside("mux1", lambda: set_neighbour(address, mac))
        lab.inside("mux1", lambda: set_route(via))
        try:
            mux.wait_for(f"next hop of 10.1.1.2: {mac}")
            send(lab, "client", syn(4000))
            assert link.tunnelled().dst == mac
        finally:
            lab.inside("mux1", lambda: remove_route(via.destination))


def remove_route(destination: str) -> None:
    with IPRoute() as ip:
        ip.route("del", dst=destination)
