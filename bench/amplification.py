"""Amplification: the packets and the CPU time that one packet of a client causes, at a mux and at the hosts.

The lab has one mux and eight hosts, all in user space, where a process's CPU time covers all of its work except the
kernel's softirqs. The budgets of the slow path are raised, so that the figures are the cost of one packet until a
budget is used up; the notes say how many packets a budget dropped nevertheless. The packets and CPU time of the idle
lab are subtracted. SYNs come last, because their hosts repeat the SYN-ACKs for a minute.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from bench.live import LAB
from bench.report import Result
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetCounters
from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import packet_counters
from lbmux.lab.scoreboard.flood import acknowledgments, datagrams, fragments, pings, send, sources, syns
from lbmux.lab.systems.ananta_wide import wide
from lbmux.lab.systems.common_nodes import CLIENT, SPEAKER
from lbmux.lab.topology import ECHO_PORT, VIP, Topology
from lbmux.wire.header_layouts import ICMP_ERROR
from lbmux.wire.icmp_types import UNREACHABLE
from lbmux.wire.numbers import UDP_PROTOCOL
from lbmux.wire.packet import icmp_packet, transport_packet, udp_header

HOSTS, PACKETS, SECONDS, MORE_S = 8, 3000, 3.0, 2.0
"""The number of hosts, the packets of each kind, the time in which they are sent, and the time after it in which their
effects still count."""
IDLE_TIMES = 3
DATAGRAM_PORT, QUIC_PORT, CLOSED_PORT = 53, 443, 9
NO_LIMITS = {"packets_per_s": 1_000_000, "icmp_per_s": 1_000_000, "rejects_per_s": 1_000_000, "second_chance_cpu": 1.0,
             "second_chance_agent_cpu": 1.0}  # fmt: skip
UNKNOWN_ID = b"\x40" + bytes([77]) * 20
"""A short header (RFC 9000, section 17.3) with a server id that no backend has."""
TARGET, HERE = ip_address(VIP), ip_address(CLIENT)
Packets = Iterator[bytes]


class Totals(NamedTuple):
    """Packets sent, and CPU time in microseconds, by the mux and by all hosts with their agents."""

    mux_packets: float
    host_packets: float
    mux_us: float
    host_us: float

    def __sub__(self, other: "Totals") -> "Totals":  # type: ignore[override]
        return Totals(*(after - before for after, before in zip(self, other, strict=True)))


def one_flow() -> Packets:
    packet = transport_packet(HERE, TARGET, UDP_PROTOCOL, udp_header(2000, DATAGRAM_PORT, 8) + bytes(8))
    return iter([packet] * PACKETS)


def quic() -> Packets:
    for source, port in sources():
        header = udp_header(port, QUIC_PORT, len(UNKNOWN_ID))
        yield transport_packet(source, TARGET, UDP_PROTOCOL, header + UNKNOWN_ID)


def icmp_errors() -> Packets:
    """Errors about packets of the VIP that nothing has sent."""
    for (source, port), quoted in zip(sources(), datagrams(TARGET, 4000), strict=False):
        quote = transport_packet(TARGET, source, UDP_PROTOCOL, udp_header(ECHO_PORT, port, len(quoted)))
        yield icmp_packet(source, TARGET, ICMP_ERROR.pack(type=UNREACHABLE, code=1, value=0) + quote)


PATHS: dict[str, Callable[[], Packets]] = {
    "datagram of a known flow": one_flow,
    "datagram, new flow": lambda: datagrams(TARGET, DATAGRAM_PORT),
    "ACK of no connection (second chance)": lambda: acknowledgments(HERE, TARGET, ECHO_PORT),
    "first fragment": lambda: fragments(TARGET, DATAGRAM_PORT),
    "ping of the VIP": lambda: pings(TARGET, 0),
    "ICMP error about no flow": icmp_errors,
    "QUIC, unknown connection id": quic,
    "datagram to a port without a service": lambda: datagrams(TARGET, CLOSED_PORT),
    "SYN, new flow": lambda: syns(TARGET, ECHO_PORT),
}  # fmt: skip


def run() -> list[Result]:
    lab = Lab(_topology(), LAB, "packet")
    lab.up()
    try:
        _wait_for_route(lab)
        idle = Totals(*map(min, zip(*(_caused(lab, []) for _ in range(IDLE_TIMES)), strict=True)))
        return [result for path in PATHS for result in _results(lab, path, idle)]
    finally:
        lab.down()


def _results(lab: Lab, path: str, idle: Totals) -> Iterator[Result]:
    before = _over_budget(lab)
    caused = _caused(lab, list(islice(PATHS[path](), PACKETS))) - idle
    dropped = ", ".join(f"{name} {count:,}" for name, count in (_over_budget(lab) - before).items())
    names = ("packets sent by the mux", "packets sent by hosts", "CPU of the mux", "CPU of agents")
    for name, value, unit in zip(names, caused, ("packets", "packets", "µs", "µs"), strict=True):
        yield Result("amplification", f"{path}: {name}", value / PACKETS, unit, note=dropped)
        dropped = ""


def _caused(lab: Lab, packets: list[bytes]) -> Totals:
    before = _totals(lab)
    begun = time.monotonic()
    if packets:
        lab.inside("client", partial(send, packets, VIP, SECONDS))
    time.sleep(max(0.0, begun + SECONDS + MORE_S - time.monotonic()))
    return _totals(lab) - before


def _over_budget(lab: Lab) -> Counter[str]:
    """Return what budgets of the slow path have dropped at the mux and at all agents, by counter."""
    dropped = Counter[str]()
    for node in lab.topology.nodes:
        if node.role in ("mux", "host"):
            counters = ControlClient(lab.directory / f"{node.name}.sock").ask(GetCounters()).slowpath or {}
            dropped += Counter({name: count for name, count in counters.items() if "over_" in name})
    return dropped


def _totals(lab: Lab) -> Totals:
    hosts = [node.name for node in lab.topology.nodes if node.role == "host"]
    return Totals(
        _sent(lab, "mux1"), sum(_sent(lab, host) for host in hosts),
        _cpu_us(lab, "mux1", "mux"), sum(_cpu_us(lab, host, "agent") for host in hosts),
    )  # fmt: skip


def _sent(lab: Lab, node: str) -> int:
    return lab.inside(node, lambda: packet_counters("eth0")[1])


def _cpu_us(lab: Lab, node: str, program: str) -> float:
    """Return the CPU time of all threads of a process (sched-stats.rst: nanoseconds on a CPU)."""
    threads = Path(f"/proc/{lab.process(node, program).pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in threads) / 1000


def _topology() -> Topology:
    plain = wide(*SPEAKER, hosts=HOSTS, mux_count=1)
    (echo,) = plain.config["services"]
    services = [echo, _service(echo, "datagrams", DATAGRAM_PORT), _service(echo, "quic", QUIC_PORT)]
    services[2] |= {"quic": {"rotation": 2}}
    services[2]["backends"] = [one | {"server_id": f"{n:02x}"} for n, one in enumerate(services[2]["backends"], 1)]
    return replace(plain, config=plain.config | {"services": services, "slowpath": NO_LIMITS})


def _service(echo: dict[str, Any], name: str, port: int) -> dict[str, Any]:
    kept = {key: value for key, value in echo.items() if key != "health"}
    backends = [backend | {"port": port} for backend in echo["backends"]]
    return kept | {"name": name, "protocol": "udp", "port": port, "backends": backends}


def _wait_for_route(lab: Lab) -> None:
    deadline = time.monotonic() + 20
    while not lab.run("router", ["ip", "route", "show", f"{VIP}/32"], capture_output=True).stdout:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no route to {VIP}")
        time.sleep(0.1)
    time.sleep(MORE_S)
