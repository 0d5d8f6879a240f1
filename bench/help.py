"""The cost of second chance, compared with copying every new flow to another mux.

In memory: an agent that checks its host's sockets for an unknown connection, a mux that forwards a returned packet, and
a mux that enters flows which another mux sends over UDP. In a lab: connections are searched for on more and more hosts,
after a mux has taken over with an empty flow table and a Maglev table that maps each connection to another host.
"""

import socket
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from signal import SIGKILL

from bench.frames import LOCAL, PORT, VIP, config, tables
from bench.live import LAB
from bench.report import Result, median
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetCounters
from lbmux.config.slowpath_models import SlowPath
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.xdp import detach
from lbmux.lab import processes
from lbmux.lab.lab import Lab
from lbmux.lab.systems.ananta_wide import HOSTS, wide
from lbmux.lab.topology import ECHO_PORT
from lbmux.linux.sock_diag import Connections
from lbmux.slowpath.agent_slow_path import Adopted, AgentContext, AgentSlowPath, Target
from lbmux.slowpath.forwarder import TableForwarder
from lbmux.slowpath.mux_context import MuxContext, vips_of
from lbmux.slowpath.mux_slow_path import MuxSlowPath
from lbmux.slowpath.slow_path_flow import Flow
from lbmux.targets.native import Worker
from lbmux.targets.regions import now_ticks
from lbmux.wire.header_layouts import ETHERNET_BYTES
from lbmux.wire.numbers import ACK, IPIP_PROTOCOL, TCP_PROTOCOL
from lbmux.wire.packet import ip_packet, tcp_header

PACKETS, FLOWS, CONNECTIONS = 5000, 4096, 96
NO_LIMIT = 1_000_000
COPIED_PER_S = 10_000
"""New trusted flows per second, for the estimate of copies."""
FLOW_BYTES, FLOWS_A_DATAGRAM = 16, 64
"""The size of a copy: client, VIP, ports, backend and protocol, for IPv4."""
CLIENT, DIP, TCP = "198.18.0.1", "10.1.0.1", 6
SPREAD = (1, 8, 16, 23)
"""The numbers of hosts tried in vain for which results are shown, or the nearest numbers that occurred."""


def run() -> list[Result]:
    agent, mux, wide_mux = _agent_us(), _mux_us(24), _mux_us(1000)
    copy_us = _copy_us()
    search_us = 24 / 2 * (agent + mux)
    cores = COPIED_PER_S * copy_us / 1e6
    results = [
        Result("help", "agent: an unknown connection", agent, "µs of CPU",
               note=f"{1e6 / agent:,.0f} a second on a core; the kernel's answer is in it"),
        Result("help", "mux: a returned packet, 24 backends", mux, "µs of CPU", note=f"{1e6 / mux:,.0f} a second"),
        Result("help", "mux: a returned packet, 1000 backends", wide_mux, "µs of CPU", "24 backends",
               wide_mux / mux, note=f"{1e6 / wide_mux:,.0f} a second"),
        Result("help", "a connection found at the 12th of 24 hosts, after a take-over", search_us, "µs of CPU"),
        Result("help", "a flow copied: sent, received, entered", copy_us, "µs of CPU",
               note=f"{1e6 / copy_us:,.0f} a second, {FLOWS_A_DATAGRAM} in a datagram"),
        Result("help", f"copies at {COPIED_PER_S:,} new flows a second", cores, "cores",
               note=f"all the time; as much as {COPIED_PER_S * copy_us / search_us:,.0f} flows found a second"),
    ]  # fmt: skip
    return results + _take_over()


def _cpu_us(work: Callable[[], None], times: int) -> float:
    """Return this process's CPU time for one of ``times`` operations, in microseconds."""

    def once() -> float:
        start = time.process_time()
        work()
        return 1e6 * (time.process_time() - start) / times

    return median(once)


def _segment(port: int) -> bytes:
    return ip_packet(ip_address(CLIENT), ip_address(VIP), TCP_PROTOCOL, tcp_header(port, PORT, ACK, 1, 1))


def _flow(port: int) -> Flow:
    return Flow(TCP, ip_address(CLIENT), port, ip_address(VIP), PORT)


def _forwarder(backends: int) -> TableForwarder:
    forwarder = TableForwarder(Worker(tables(config(FLOWS * 16, backends))), now_ticks)
    forwarder.warm_up()
    return forwarder


def _agent_us() -> float:
    forwarder = _forwarder(1)
    frames = [frame for n in range(PACKETS) for _, frame in forwarder.tunnel(_segment(1024 + n), 0)]
    with Connections() as connections:

        def connected(flow: Flow) -> bool:
            return connections.has(flow.vip, flow.vip_port, flow.client, flow.client_port)

        target = Target(ip_address(DIP), 8080)
        slow = AgentSlowPath(
            AgentContext(
                {target.dip},
                set(LOCAL),
                lambda flow: target,
                6080,
                6081,
                NO_LIMIT,
                connected,
                lambda flow: Adopted.GONE,
                lambda flow: None,
            ),
            cpu_s=lambda: 0.0,
        )
        slow.inbound(Verdict.UNKNOWN_CONNECTION, frames[0], time.monotonic())
        slow.counts.clear()

        def work() -> None:
            for frame in frames:
                slow.inbound(Verdict.UNKNOWN_CONNECTION, frame, time.monotonic())

        used = _cpu_us(work, PACKETS)
    assert slow.counts.keys() == {"unknown_returned"}, slow.counts
    return used


def _mux_us(backends: int) -> float:
    """Measure a mux. Each packet is another flow's, returned by the host to which it was sent."""
    forwarder = _forwarder(backends)
    hosts = {row: forwarder.host(row) for row in range(backends)}
    place = MuxContext(SlowPath(packets_per_s=NO_LIMIT), vips_of([(ip_address(VIP), "tcp", PORT)]),
                  hosts={host: () for host in hosts.values()})  # fmt: skip
    frames = []
    for port in range(1024, 1024 + PACKETS):
        owner = forwarder.owner(_flow(port))
        assert owner is not None
        (_, frame) = forwarder.tunnel(_segment(port), owner)[0]
        back = ip_packet(hosts[owner], LOCAL[0], IPIP_PROTOCOL, _segment(port))
        frames.append(frame[:ETHERNET_BYTES] + back)

    def work() -> None:
        slow = MuxSlowPath(forwarder, frozenset(LOCAL), place, lambda vip: True, cpu_s=lambda: 0.0)
        for frame in frames:
            slow.handle(Verdict.PROTOCOL, frame, -1, time.monotonic())
        assert slow.counts.keys() == {"returned_forwarded"}, slow.counts

    return _cpu_us(work, PACKETS)


def _copy_us() -> float:
    """Measure sender and receiver, in turn on one core."""
    forwarder, rows = _forwarder(100), range(100)
    with socket.socket(type=socket.SOCK_DGRAM) as receiver, socket.socket(type=socket.SOCK_DGRAM) as sender:
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())

        def work() -> None:
            for first in range(0, FLOWS, FLOWS_A_DATAGRAM):
                ports = range(1024 + first, 1024 + first + FLOWS_A_DATAGRAM)
                sender.send(b"".join(_pack(_flow(port), rows[port % 100]) for port in ports))
                message = receiver.recv(65535)
                for at in range(0, len(message), FLOW_BYTES):
                    forwarder.assign(*_unpack(message[at : at + FLOW_BYTES]))

        work()
        return _cpu_us(work, FLOWS)


def _pack(flow: Flow, backend: int) -> bytes:
    ports = flow.client_port.to_bytes(2, "big") + flow.vip_port.to_bytes(2, "big")
    return flow.client.packed + flow.vip.packed + ports + backend.to_bytes(2, "big") + bytes([flow.protocol, 0])


def _unpack(data: bytes) -> tuple[Flow, int]:
    client, vip = ip_address(data[:4]), ip_address(data[4:8])
    client_port, vip_port, backend = (int.from_bytes(data[at : at + 2], "big") for at in (8, 10, 12))
    return Flow(data[14], client, client_port, vip, vip_port), backend


def _take_over() -> list[Result]:
    """Measure a connection's first request after a take-over, by the number of hosts that were tried in vain."""
    lab = Lab(wide(mux_count=1), LAB)
    lab.up()
    try:
        ours = [_connected(lab) for _ in range(CONNECTIONS)]
        usual = statistics.median(_line_ms(one) for one in ours)
        _replace_mux(lab)
        waits: dict[int, list[float]] = defaultdict(list)
        for one in ours:
            before = _asked(lab)
            wait_ms = _line_ms(one)
            waits[_asked(lab) - before].append(wait_ms)
        for one in ours:
            one.close()
    finally:
        lab.down()
    picked = sorted({min(waits, key=lambda hosts: abs(hosts - wanted)) for wanted in SPREAD})
    results = [Result("help", f"lab, {HOSTS} hosts: a request and its answer, usually", usual, "ms")]
    for hosts in picked:
        value = statistics.median(waits[hosts])
        name = f"the first after a take-over, {hosts} hosts tried in vain"
        results.append(
            Result("help", name, value, "ms", "usually", value / usual, note=f"{len(waits[hosts])} connections")
        )
    return results


def _connected(lab: Lab) -> socket.socket:
    vip = lab.config_in_force["services"][0]["vip"]
    deadline = time.monotonic() + 20
    while True:
        try:
            connection = lab.inside("client", partial(socket.create_connection, (vip, ECHO_PORT), 5))
            break
        except OSError:  # the router does not have the route yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    _line_ms(connection)
    return connection


def _line_ms(connection: socket.socket) -> float:
    start = time.perf_counter()
    connection.sendall(b"0\n")
    if not connection.recv(100):
        raise ConnectionError("a connection was lost")
    return 1000 * (time.perf_counter() - start)


def _replace_mux(lab: Lab) -> None:
    """Replace the mux with a new one without flow entries, with a table in which each flow has another slot."""
    mux, node = lab.process("mux1", "mux"), lab.topology.node("mux1")
    processes.kill(mux, SIGKILL)
    while mux.alive:
        time.sleep(0.01)
    lab.inside("mux1", partial(detach, "eth0"))
    lab.write_config(lab.config_in_force | {"maglev": {"seed": 77}})
    lab.start(node, next(program for program in node.programs if program.name == "mux"))
    _connected(lab).close()


def _asked(lab: Lab) -> int:
    """Return how many returned packets the mux has forwarded to another host."""
    slow_path = ControlClient(lab.directory / "mux1.sock").ask(GetCounters()).slowpath or {}
    return slow_path.get("returned_forwarded", 0)
