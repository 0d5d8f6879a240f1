"""The live mux over a veth pair, compared with a loop over the same ring without look-ups, and with scapy.

Generator and sink run on core 0, the mux on core 1. The rate counts the frames that come back to the generator.
"""

import json
import os
import time
from typing import Any

from bench.frames import BACKENDS, PORT, VIP
from bench.report import REPETITIONS, Result
from lbmux.frames.xdp import detach
from lbmux.lab import namespaces
from lbmux.lab.lab import Lab
from lbmux.lab.processes import Process, end, python
from lbmux.lab.topology import Link, Node, Port, Program, Route, Topology

GENERATOR_CORE, MUX_CORE = 0, 1
SECONDS = 3.0
OURS, PEER = "10.9.0.2", "10.9.0.1"
FLOWS = 1000
SCAPY_LIMIT_PPS = 20_000
"""More than scapy can forward, but not by much."""
LAB = f"lbmux-bench-{os.getpid()}"
"""The lab's name; two runs at the same time do not meet."""


def topology(takes_xdp: bool = False) -> Topology:
    """Return a topology of a mux and a generator, which is also the host of all backends."""
    nodes = (Node("generator", "client"), Node("mux", "mux"))
    offloads = {"gro": False}
    link = Link(
        Port("generator", "a0", f"{PEER}/24", offloads, takes_xdp=takes_xdp), Port("mux", "b0", f"{OURS}/24", offloads)
    )
    service = {"name": "web", "vip": VIP, "protocol": "tcp", "port": PORT}
    backends = [{"name": f"b{n}", "dip": f"10.1.0.{n + 1}"} for n in range(BACKENDS)]
    return Topology("bench", nodes, (link,), {"services": [service | {"backends": backends}]})


class Bed:
    """The two namespaces, and the program that forwards between them."""

    def __init__(self, takes_xdp: bool = False) -> None:
        self.lab = Lab(topology(takes_xdp), LAB)
        self._process: Process | None = None

    def __enter__(self) -> "Bed":
        self.lab.up(programs=False)
        self.lab.inside("mux", lambda: namespaces.set_route(Route("10.1.0.0/16", (PEER,))))
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self.lab.down()

    def start_mux(self, driver: str = "packet", *more: str) -> float:
        """Start a mux, with ``more`` options. Return the seconds until it was ready."""
        arguments = ("mux", "-c", "{config}", "-i", "b0", "--driver", driver, "--xdp-mode", "native", *more)
        return self._start(Program("mux", "lbmux.cli.main", (*arguments, "--control", "{state}/mux.sock")))

    def start_empty(self, ring: str = "v2-sendmmsg") -> None:
        self._start(Program("empty", "bench.empty_loop", ("b0", ring)))

    def start_scapy(self) -> None:
        self._start(Program("scapy", "bench.scapy_balancer", ("b0", PEER)))

    def _start(self, program: Program) -> float:
        self.stop()
        start = time.perf_counter()
        self._process = self.lab.start(self.lab.topology.node("mux"), program)
        took_s = time.perf_counter() - start
        os.sched_setaffinity(self._process.pid, {MUX_CORE})
        time.sleep(0.3)
        return took_s

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    def detach(self) -> None:
        """Stop the program and detach what the kernel driver left."""
        self.stop()
        self.lab.inside("mux", lambda: detach("b0"))

    def stop(self) -> None:
        if self._process is not None:
            end([self._process])
            self._process = None

    def generate(self, seconds: float = SECONDS, flows: int = FLOWS, limit_pps: int = 0) -> dict[str, Any]:
        """Send frames for a while. Return how many were sent and came back, and packets per second."""
        before = self.lab.inside("generator", lambda: namespaces.packet_counters("a0"))
        command = python("bench.send", "a0", "--seconds", str(seconds), "--flows", str(flows), "--pps", str(limit_pps))
        done = self.lab.run("generator", command, capture_output=True, check=True, text=True)
        time.sleep(0.2)
        after = self.lab.inside("generator", lambda: namespaces.packet_counters("a0"))
        sent = json.loads(done.stdout)
        back = after[0] - before[0]
        return sent | {"back": back, "pps": back / sent["seconds"]}


def run() -> list[Result]:
    rates: dict[str, list[float]] = {"empty": [], "mux": [], "scapy": []}
    with Bed() as bed:
        for _ in range(REPETITIONS):
            for name, start in (("empty", bed.start_empty), ("mux", bed.start_mux)):
                start()
                rates[name].append(bed.generate()["pps"])
        bed.start_scapy()
        rates["scapy"].append(bed.generate(limit_pps=SCAPY_LIMIT_PPS)["pps"])
    middle = {name: sorted(values)[len(values) // 2] for name, values in rates.items()}
    ratios = sorted(mux / empty for mux, empty in zip(rates["mux"], rates["empty"], strict=True))
    where = f"generator core {GENERATOR_CORE}, mux core {MUX_CORE}"
    return [
        Result("live", "empty loop, same ring", middle["empty"] / 1000, "kpps", note=where),
        Result("live", "AF_PACKET mux, 1000 flows", middle["mux"] / 1000, "kpps", "empty loop",
               ratios[len(ratios) // 2], ">= 0.9", where),
        Result("live", "scapy sniff and send", middle["scapy"] / 1000, "kpps", "AF_PACKET mux",
               middle["scapy"] / middle["mux"], note=where),
    ]  # fmt: skip
