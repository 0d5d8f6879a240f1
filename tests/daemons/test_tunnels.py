"""Every kind of tunnel and both families of VIP and host, by real connections, with each driver."""

import ctypes
import hashlib
import http.client
import itertools
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet

from lbmux.frames.batch import Batch
from lbmux.frames.packet_ring import PacketRing
from lbmux.frames.xdp import detach
from lbmux.lab import processes
from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import link_mac
from lbmux.lab.test_server import PATTERN
from lbmux.lab.topology import VIP, VIP6
from lbmux.tables.mux_rows import TUNNEL_KINDS
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon, configuration, running, service
from tests.daemons.slow_lab import forget_path_mtus

pytestmark = pytest.mark.root

DIPS = {4: "10.1.1.2", 6: "2001:db8:1:1::2"}
VIPS = {4: VIP, 6: VIP6}
SERVER_PORT, FIRST_PORT = 8080, 9000
WAYS = {
    FIRST_PORT + at: way for at, way in enumerate(itertools.product(TUNNEL_KINDS[:-1], (4, 6), (4, 6)))
}  # fmt: skip
"""A port for each (kind, family of the VIP, family of the host's address)."""
LENGTH_BYTES = 300_000


@pytest.fixture(scope="module", autouse=True)
def server(lab: Lab) -> Iterator[None]:
    node = lab.topology.node("host1")
    started = [lab.start(node, program, forked=True) for program in node.programs if program.name == "server"]
    forget_path_mtus(lab)
    yield
    processes.end(started)
    for name in ("mux1", "host1"):
        lab.inside(name, lambda: detach("eth0"))


def services(**more: Any) -> dict[str, Any]:
    made = [
        service(
            f"s{port}", port, [{"name": "h", "dip": DIPS[vip], "port": SERVER_PORT, "host": DIPS[host]}],
            vip=VIPS[vip], tunnel=kind,
        )
        for port, (kind, vip, host) in WAYS.items()
    ]  # fmt: skip
    return configuration(*made) | {"muxes": ["10.0.1.2", "2001:db8:0:1::2"]} | more


def asked(lab: Lab, port: int, vip: str, method: str, path: str, body: bytes | None = None) -> str:
    def work() -> str:
        connection = http.client.HTTPConnection(vip, port, timeout=5)
        try:
            connection.request(method, path, body)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    return lab.inside("client", work)


def verdicts(agent: Daemon) -> dict[str, int]:
    return {line["verdict"]: line["packets"] for line in ask(agent.control, "counters")["verdicts"]}


def digest(length: int) -> str:
    return hashlib.sha256((PATTERN * (length // len(PATTERN) + 1))[:length]).hexdigest()


@pytest.mark.parametrize("sources", [(), ("172.16.0.0/16", "2001:db8:ffff::/112")], ids=["own", "by hash"])
@pytest.mark.parametrize("driver", [("packet", "tun"), ("xdp", "xdp")], ids=["user space", "kernel"])
def test_every_kind_of_tunnel_carries_a_connection(lab: Lab, driver: tuple[str, str], sources: tuple[str, ...]) -> None:
    """A question, and an upload of full-sized segments."""
    lab.write_config(services(tunnel={"sources": list(sources)}))
    body = (PATTERN * (LENGTH_BYTES // len(PATTERN) + 1))[:LENGTH_BYTES]
    options = [("--driver", name, *(["--detach-on-exit"] if name == "xdp" else [])) for name in driver]
    # Start the agent first: a mux sends nothing to a host that has stopped answering its probes.
    with running(lab, "host1", "agent", *options[1]) as agent, running(lab, "mux1", "mux", *options[0]) as mux:
        counted = verdicts(agent)
        for port, way in WAYS.items():
            vip, before = VIPS[way[1]], counted
            assert asked(lab, port, vip, "GET", "/whoami") == "h1", way
            assert asked(lab, port, vip, "PUT", "/digest", body) == digest(LENGTH_BYTES), way
            counted = verdicts(agent)
            assert counted["delivered"] - before["delivered"] > LENGTH_BYTES // 1500, way
            assert counted["replied"] - before["replied"] >= 4, "SYN-ACK and response, twice"
        assert (counted["not_a_mux"], counted["no_local_backend"]) == (0, 0)
        flows = ask(mux.control, "runtime")
        assert flows["driver"] == driver[0]


def test_a_tagged_frame_leaves_with_its_tag(lab: Lab) -> None:
    lab.write_config(services())
    macs = lab.inside("mux1", lambda: link_mac("eth0")), lab.inside("router", lambda: link_mac("to-mux1"))
    there, here = (mac.to_bytes(6, "little").hex(":") for mac in macs)
    packet = IP(src="198.51.100.2", dst=VIP, ttl=9) / TCP(sport=4242, dport=FIRST_PORT, flags="S")
    with running(lab, "mux1", "mux") as mux, lab.inside("router", lambda: PacketRing("to-mux1", 64)) as ring:
        mux.wait_for("next hop of 10.1.1.2")
        lab.inside("router", lambda: send_frame("to-mux1", bytes(Ether(src=here, dst=there) / Dot1Q(vlan=7) / packet)))
        sent = next(frame for frame in frames_of(ring) if Dot1Q in frame)
    assert (sent.src, sent.dst, sent[Dot1Q].vlan) == (there, here, 7)
    assert (sent[IP].proto, sent[IP].dst, sent[IP].payload.dst) == (4, "10.1.1.2", VIP)


def send_frame(interface: str, frame: bytes) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((interface, 0))
        sock.send(frame)


def frames_of(ring: PacketRing, seconds: float = 3.0) -> Iterator[Packet]:
    """What comes in time."""
    batch = Batch()
    while select.select([ring], [], [], seconds)[0]:
        ring.receive(batch)
        for at in range(batch.count):
            yield Ether(ctypes.string_at(int(batch.address[at]), int(batch.length[at])))
        ring.release(batch)
