"""The mux in the kernel, compared with the machine's limits and with nftables.

A generator program (generator.py) sends from one end of a veth pair. The program under test runs at the other end, and
a sink at the first end counts the frames that it sends back. All cases run back to back; the figures are medians of
three. On one core generator, mux and sink share core 0; on two the mux (its NAPI thread) has core 1.
"""

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from socket import if_nametoindex
from typing import Any

import numpy as np

from bench import nftables
from bench.frames import BACKENDS, LOCAL, PORT, VIP, VIP6, config, tcp_frame
from bench.generator import PATTERN
from bench.live import GENERATOR_CORE, MUX_CORE, PEER, Bed
from bench.report import REPETITIONS, Result
from lbmux.addresses import mac_to_int, port_to_wire, to_pair, to_wire32
from lbmux.datapath.context import TABLE_SYMBOL
from lbmux.datapath.tables import Sizes
from lbmux.frames.tap_reader import TapReader
from lbmux.frames.xdp import Kernel
from lbmux.lab.namespaces import inside, link_mac, set_neighbour
from lbmux.linux.next_hops import NextHop
from lbmux.tables.mux_tables import MuxTables, power_of_two
from lbmux.targets.bpf import objects, syscall
from lbmux.targets.bpf.maps import KernelTables
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.bpf.test_runs import TestRunner, run_live
from lbmux.targets.regions import Tables
from lbmux.tracing.prefilter_builder import prefilter_of
from lbmux.tracing.trace_budget import FRAMES_A_SECOND
from lbmux.wire.numbers import ACK, SYN

SECONDS = 1.5
FIRST_FRAMES = 200_000
FLOWS = (100, 1000, 10_000, 100_000, 1_000_000)
SIZES = (64, 128, 256, 512, 1024, 1400)
NEW = 1 << 40
"""Enough flows that none repeats."""
TEST_RUNS = 2_000_000
PROGRAMS = {Attach.XDP: "mux_xdp"}
LOOK_ONCE = {Attach.XDP: "bench.kernel_programs:look_once"}
GENERATORS = {4: "generate", 6: "generate6"}
"""The program that sends by IP version."""
NEVER_IDLE = {"untrusted_s": 86400, "tcp_s": 86400, "fin_s": 86400}


class KernelBed:
    """The two ends, the generator and the sink; under test is whatever is attached to ``b0``."""

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        lab = bed.lab
        self._generator, self._mux = lab.namespace("generator"), lab.namespace("mux")
        self.macs = (lab.inside("generator", lambda: link_mac("a0")), lab.inside("mux", lambda: link_mac("b0")))
        self._map = syscall.create_array("pattern", PATTERN.itemsize)
        memory = np.frombuffer(syscall.map_value(self._map, PATTERN.itemsize), np.uint8)
        self._row = memory[: PATTERN.itemsize].view(PATTERN)
        self._programs = {version: self._load(f"bench.generator:{name}") for version, name in GENERATORS.items()}
        self._attach(self._generator, "a0", self._load("bench.generator:sink"))

    def _load(self, name: str) -> int:
        code = objects.compiled(name).program(objects.SECTION, {TABLE_SYMBOL + "pattern": self._map}, {})
        return syscall.load_program(Attach.XDP, code, name.rpartition(":")[2]).descriptor

    def _attach(self, namespace: str, interface: str, program: int) -> int:
        def link() -> int:
            return syscall.create_link(program, if_nametoindex(interface), Attach.XDP, syscall.XDP_NATIVE)

        return inside(namespace, link)

    @contextlib.contextmanager
    def program(self, name: str) -> Iterator[None]:
        """Test a program without tables."""
        link = self._attach(self._mux, "b0", self._load(f"bench.kernel_programs:{name}"))
        try:
            yield
        finally:
            os.close(link)

    @contextlib.contextmanager
    def mux(self, programs: Mapping[Attach, str] = PROGRAMS, services: int = 1) -> Iterator[Kernel]:
        """Test the mux, or another program on its tables, with a flow table for a million flows.

        ``services``: how many services the tables have space for.
        """
        backends = max(Sizes.backends, power_of_two((services + 10) * BACKENDS // 10))
        slots = (services + 7) * 65537
        sizes = Sizes(workers=(os.cpu_count() or 1) + 1, slots=slots, backends=backends, buckets=1 << 19)
        kernel = inside(self._mux, lambda: Kernel("b0", sizes))
        try:
            fill(kernel.tables, self.macs)
            inside(self._mux, lambda: kernel.attach(programs))
            yield kernel
        finally:
            inside(self._mux, kernel.detach)

    @contextlib.contextmanager
    def watched(self, kernel: Kernel, filter: str) -> Iterator[None]:
        """Test the mux with a trace client and its filter."""
        recorder = inside(self._mux, lambda: TapReader(kernel, PROGRAMS))
        try:
            recorder.set_prefilter(prefilter_of(filter))
            recorder.allow(FRAMES_A_SECOND)
            yield
        finally:
            inside(self._mux, recorder.close)

    @contextlib.contextmanager
    def two_cores(self) -> Iterator[None]:
        """Process frames for ``b0`` in a NAPI thread on the other core, once a program is attached."""
        script = "mount -t sysfs none /sys && echo {} > /sys/class/net/b0/threaded"
        self.bed.lab.run("mux", ["unshare", "-m", "sh", "-c", script.format(1)], check=True)
        for thread in Path("/proc").glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):
                if thread.read_text().startswith("napi/b0-"):
                    os.sched_setaffinity(int(thread.parent.name), {MUX_CORE})
        try:
            yield
        finally:
            self.bed.lab.run("mux", ["unshare", "-m", "sh", "-c", script.format(0)], check=True)

    def aim(self, flows: int, services: int = 1) -> Any:
        """Set the number of flows that the generator sends to the services, a power of two. Return its PATTERN row."""
        row = self._row[0]
        row["port_mask"] = services - 1
        row["flows"], row["destination_mac"], row["source_mac"] = flows, self.macs[1], self.macs[0]
        row["source"], row["destination"], row["port"] = 0xC6120000, to_wire32(VIP), port_to_wire(PORT)
        row["destination_high"], row["destination_low"] = to_pair(VIP6)
        return row

    def send(self, frame: bytes, count: int, version: int = 4) -> None:
        """Send ``count`` frames of that length, from within the generator's namespace."""
        run_live(self._programs[version], frame, count, if_nametoindex("a0"))

    def rate(self, flows: int, length: int = 64, seconds: float = SECONDS, sent: bool = False) -> float:
        """Return millions of frames per second that came back, or that were ``sent``."""
        row, frame = self.aim(flows), tcp_frame(length)
        row["flags"] = SYN if flows == NEW else ACK

        def run(count: int) -> tuple[float, int]:
            row["next"], before = 0, int(row["back"])
            os.sched_setaffinity(0, {GENERATOR_CORE})
            start = time.perf_counter()
            self.send(frame, count)
            return time.perf_counter() - start, int(row["back"]) - before

        def work() -> float:
            count = max(FIRST_FRAMES, 2 * flows if flows < NEW else 0)  # each flow twice, so that it is established
            taken, _ = run(count)
            count = int(count * seconds / taken)
            taken, back = run(count)
            return (count if sent else back) / taken / 1e6

        return inside(self._generator, work)


def fill(tables: Tables, macs: tuple[int, int], flows: str = "all", version: int = 4, services: int = 1) -> None:
    """Fill the tables with services at consecutive ports from PORT on, which track these flows.

    One service has 100 backends; of several, each has the same 10.
    """
    configuration = config(version=version, backends=BACKENDS if services == 1 else BACKENDS // 10)
    (first,) = configuration.services
    first = first.model_copy(update={"idle": first.idle.model_copy(update=NEVER_IDLE), "flows": flows})
    spread = tuple(first.model_copy(update={"name": f"web{n}", "port": PORT + n}) for n in range(services))
    mux = MuxTables(tables, *LOCAL)
    mux.commit(mux.plan(configuration.model_copy(update={"services": spread})))
    for destination in mux.destinations():
        mux.set_next_hop(destination, NextHop(0, macs[1], macs[0], 1500))


def established_ns() -> float:
    """Return nanoseconds per packet of an established flow, by BPF_PROG_TEST_RUN.

    The program restores the frame, and the cost of that is subtracted.
    """
    with KernelTables.create(Sizes(workers=(os.cpu_count() or 1) + 1)) as kernel:
        fill(kernel.tables, (mac_to_int("02:00:00:00:00:01"), mac_to_int("02:00:00:00:00:02")))
        loaded = [kernel.load(f"bench.kernel_programs:{name}", Attach.XDP) for name in ("again", "nothing")]
        runners = [TestRunner(program.descriptor) for program in loaded]
        whole, harness = ([runner.run(tcp_frame(), TEST_RUNS).duration_ns for _ in range(9)] for runner in runners)
    return statistics.median(whole) - statistics.median(harness)


def run() -> list[Result]:
    results = [Result("kernel", "established flow, BPF_PROG_TEST_RUN", established_ns(), "ns", goal="< 40",
                      note="frame put back, harness subtracted")]  # fmt: skip
    with Bed() as bed:
        kernel_bed = KernelBed(bed)
        one = _limits_and_mux(kernel_bed, False)
        two = _limits_and_mux(kernel_bed, True)
        others = {"nftables, Maglev map, fwd": _nftables(kernel_bed), "AF_PACKET mux": _packet(kernel_bed)}
        with kernel_bed.mux():
            by_flows = {flows: kernel_bed.rate(flows) for flows in FLOWS}
        by_size = {}
        for length in SIZES:
            with kernel_bed.mux():
                by_size[length] = kernel_bed.rate(1000, length)
    goals = {"1000 flows": ">= 0.85", "1,000,000 flows": ">= 0.55", "new flows only": ">= 0.5"}
    for cores, rates in (("one core", one), ("two cores", two)):
        for name, values in rates.items():
            goal = goals.get(name, "") if cores == "one core" else ""
            ratio = statistics.median(rate / limit for rate, limit in zip(values, rates["XDP_TX"], strict=True))
            value = statistics.median(values)
            results.append(Result("kernel", f"{cores}: {name}", value, "Mpps", "XDP_TX", ratio, goal))
    for (name, pairs), goal in zip(others.items(), (">= 3", ">= 8"), strict=True):
        value, ratio = (statistics.median(column) for column in zip(*((o, mux / o) for mux, o in pairs), strict=True))
        results.append(Result("kernel", name, value, "Mpps", "the mux is so many times faster", ratio, goal))
    results += [Result("kernel-flows", f"{flows:,}", rate, "Mpps") for flows, rate in by_flows.items()]
    results += [Result("kernel-size", str(length), rate, "Mpps") for length, rate in by_size.items()]
    return results


def _limits_and_mux(kernel_bed: KernelBed, two_cores: bool) -> dict[str, list[float]]:
    """Run each case in turn, three times. The machine is shared, so ratios compare neighbours in time."""

    @contextlib.contextmanager
    def cores() -> Iterator[None]:
        with kernel_bed.two_cores() if two_cores else contextlib.nullcontext():
            yield

    def under(context: Callable[[], contextlib.AbstractContextManager[Any]], flows: int, sent: bool = False) -> float:
        with context(), cores():
            return kernel_bed.rate(flows, sent=sent)

    cases: dict[str, Callable[[], float]] = {
        "XDP_DROP": lambda: under(lambda: kernel_bed.program("drop"), 1000, sent=True),
        "XDP_TX": lambda: under(lambda: kernel_bed.program("send_back"), 1000),
        "one look at the table, 1,000,000 flows": lambda: under(lambda: kernel_bed.mux(LOOK_ONCE), 1_000_000),
        "1000 flows": lambda: under(kernel_bed.mux, 1000),
        "1,000,000 flows": lambda: under(kernel_bed.mux, 1_000_000),
        "new flows only": lambda: under(kernel_bed.mux, NEW),
    }
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(REPETITIONS):
        for name, case in cases.items():
            rates[name].append(case())
    return rates


def _nftables(kernel_bed: KernelBed) -> list[tuple[float, float]]:
    """Return (the mux's rate, nftables' rate), three times."""
    pairs = []
    for _ in range(REPETITIONS):
        with kernel_bed.mux():
            mux = kernel_bed.rate(1000)
        nftables.install(kernel_bed.bed.lab, "mux", "b0")
        with kernel_bed.program("pass_up"):
            pairs.append((mux, kernel_bed.rate(1000)))
        kernel_bed.bed.lab.run("mux", ["nft", "flush", "ruleset"], check=True)
    return pairs


def _packet(kernel_bed: KernelBed) -> list[tuple[float, float]]:
    """Return (the mux's rate in the kernel, its rate with AF_PACKET on a core of its own), three times."""
    pairs = []
    kernel_bed.bed.lab.inside("mux", lambda: set_neighbour("b0", PEER, kernel_bed.macs[0]))  # the sink answers no ARP
    for _ in range(REPETITIONS):
        with kernel_bed.mux():
            mux = kernel_bed.rate(1000)
        with kernel_bed.program("pass_up"):
            kernel_bed.bed.start_mux("packet")
            time.sleep(1)
            pairs.append((mux, kernel_bed.rate(1000)))
            kernel_bed.bed.stop()
    return pairs
