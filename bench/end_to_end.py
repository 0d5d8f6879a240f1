"""Real TCP from end to end: lbmux, HAProxy and nftables' DNAT beside plain routing, and bulk uploads by super-frames.

Client, router, mux and host are namespaces on the same cores. HAProxy and nftables run on the router, so their packets
take one hop less than those through the mux. The host answers the client directly, except through HAProxy. The figures
are medians of three turns, each compared with plain routing in the same turn.
"""

import contextlib
import json
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.report import REPETITIONS, Result
from lbmux.lab.lab import Lab
from lbmux.lab.processes import end, python
from lbmux.lab.topology import VIP, WIRE, Link, Program, Topology, ananta

PORT, PROXY_PORT, UNUSED_PORT, DIRECT_PORT = 9000, 9001, 9002, 9003
"""The server's port is DIRECT_PORT for all but lbmux, because the agent handles replies from a backend's port."""
DIP, ROUTER = "10.1.1.2", "198.51.100.1"
SECONDS = 2.0
UNITS = {"connections": "connections/s", "requests": "requests/s", "upload": "Gbit/s"}
UPLOAD_GOAL = ">= 1.5"
UPLOAD_FIGURES = {
    "per_s": ("upload by driver packet", "Gbit/s"),
    "mux": ("the mux's CPU time", "s for a GB"),
    "agent": ("the agent's CPU time", "s for a GB"),
}
NAT = f"""table ip bench {{
  chain prerouting {{
    type nat hook prerouting priority -100
    ip daddr {ROUTER} tcp dport {PORT} dnat to {DIP}:{DIRECT_PORT}
  }}
}}
"""
Figures = dict[str, float]


def topology(super_frames: bool) -> Topology:
    """Return a client, a router, one mux and one host. Frames to mux and host are as the client's stack makes them, or
    as on a wire: segmented, with finished checksums."""
    plain = ananta(mux_count=1)
    kept = {"client", "router", "mux1", "host1"}
    backend = {"name": "h1", "dip": DIP, "port": PORT}
    service = {"name": "load", "vip": VIP, "protocol": "tcp", "port": PORT, "backends": [backend]}
    nodes = [replace(node, programs=_programs(node.programs)) for node in plain.nodes if node.name in kept]
    links = [_link(link, super_frames) for link in plain.links if link.b.node in kept]
    return Topology("end-to-end", tuple(nodes), tuple(links), {"muxes": ["10.0.1.2"], "services": [service]})


def _programs(programs: tuple[Program, ...]) -> tuple[Program, ...]:
    server = Program("server", "bench.tcp_load", ("serve", str(PORT), str(DIRECT_PORT)))
    return tuple(server if program.name == "server" else program for program in programs)


def _link(link: Link, super_frames: bool) -> Link:
    return replace(link, a=replace(link.a, offloads={})) if super_frames and link.a.offloads == WIRE else link


@contextlib.contextmanager
def lab(driver: str, super_frames: bool = False) -> Iterator[Lab]:
    made = Lab(topology(super_frames), f"lbmux-bench-{os.getpid()}", driver)
    made.up()
    try:
        yield made
    finally:
        made.down()


def used(made: Lab, kind: str, address: str, port: int = PORT) -> Figures:
    """Return the figures of a client that uses a server in this way."""
    command = python("bench.tcp_load", kind, address, str(port), "--seconds", str(SECONDS))
    figures: Figures = json.loads(made.run("client", command, capture_output=True, check=True, text=True).stdout)
    return figures


@contextlib.contextmanager
def nftables(made: Lab) -> Iterator[None]:
    rules = made.directory / "nat.nft"
    rules.write_text(NAT)
    made.run("router", ["nft", "-f", str(rules)], check=True)
    try:
        yield
    finally:
        made.run("router", ["nft", "delete", "table", "ip", "bench"], check=True)


@contextlib.contextmanager
def haproxy(made: Lab) -> Iterator[None]:
    server = ("--server", "h1", DIP, str(DIRECT_PORT), str(DIRECT_PORT))
    ports = ("--web-port", str(UNUSED_PORT), "--echo-port", str(PROXY_PORT))
    program = Program("haproxy", "lbmux.lab.haproxy", ("{state}/haproxy.cfg", *ports, *server))
    process = made.start(made.topology.node("router"), program)
    try:
        yield
    finally:
        end([process])


def run() -> list[Result]:
    return [*_beside_others(), *_super_frames()]


def _beside_others() -> list[Result]:
    figures: dict[tuple[str, str], list[tuple[Figures, Figures]]] = {}
    with lab("xdp") as made, haproxy(made):
        ways: dict[str, Callable[[str], Figures]] = {
            "lbmux": lambda kind: used(made, kind, VIP),
            "nftables DNAT": lambda kind: _with_nat(made, kind),
            "HAProxy": lambda kind: used(made, kind, ROUTER, PROXY_PORT),
        }
        for _ in range(REPETITIONS):
            for kind in UNITS:
                routed = used(made, kind, DIP, DIRECT_PORT)
                for name, way in ways.items():
                    figures.setdefault((kind, name), []).append((way(kind), routed))
    results = []
    for kind, unit in UNITS.items():
        pairs = figures[kind, "lbmux"]
        results.append(_result(kind, "plain routing", [routed for _, routed in pairs], unit))
        for name in ways:
            pairs = figures[kind, name]
            ratio = statistics.median(one["per_s"] / routed["per_s"] for one, routed in pairs)
            results.append(
                replace(_result(kind, name, [one for one, _ in pairs], unit), against="routing", ratio=ratio)
            )
    return results


def _with_nat(made: Lab, kind: str) -> Figures:
    with nftables(made):
        return used(made, kind, ROUTER)


def _result(kind: str, name: str, figures: list[Figures], unit: str) -> Result:
    middle = {key: statistics.median(one[key] for one in figures) for key in figures[0]}
    times = f"median {middle['p50_us']:.0f} µs, 99 of 100 {middle['p99_us']:.0f} µs" if "p50_us" in middle else ""
    return Result("end_to_end", f"{kind}: {name}", middle["per_s"], unit, note=times)


def _super_frames() -> list[Result]:
    """Uploads through a mux in user space, by frames as on a wire and by super-frames.

    The CPU time of mux and agent says what bounds them: both handle the same segments in either case.
    """
    measured: dict[bool, list[Figures]] = {False: [], True: []}
    for _ in range(REPETITIONS):
        for super_frames in measured:
            with lab("packet", super_frames) as made:
                measured[super_frames].append(_upload(made))
    results = []
    for key, (name, unit) in UPLOAD_FIGURES.items():
        single, large = ([figures[key] for figures in measured[super_frames]] for super_frames in (False, True))
        ratio = statistics.median(b / a for a, b in zip(single, large, strict=True))
        result = partial(Result, "end_to_end", unit=unit)
        results += [
            result(f"{name}: single frames", statistics.median(single)),
            result(f"{name}: super-frames", statistics.median(large), against="single frames", ratio=ratio,
                   goal=UPLOAD_GOAL if key == "per_s" else ""),
        ]  # fmt: skip
    return results


def _upload(made: Lab) -> Figures:
    """Return an upload's rate, and the CPU time of mux and agent in seconds for each gigabyte."""
    before = _cpu_s(made)
    figures = used(made, "upload", VIP)
    gigabytes = figures["per_s"] * SECONDS / 8
    return figures | {role: (after_s - before[role]) / gigabytes for role, after_s in _cpu_s(made).items()}


def _cpu_s(made: Lab) -> dict[str, float]:
    """Return the CPU time of each lbmux process by its role, in seconds."""
    return {
        process.name: sum(
            int(thread.read_text().split()[0]) for thread in Path(f"/proc/{process.pid}/task").glob("*/schedstat")
        )
        / 1e9
        for process in made.processes
        if process.name in ("mux", "agent")
    }
