"""A mux with as many services as a file may have, each with one backend: loading, memory, a change, both drivers."""

import os
import tempfile
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np

from bench.frames import LOCAL, Frames, tcp_frame
from bench.loading import cpu_s
from bench.report import Result
from lbmux.addresses import mac_to_int
from lbmux.config.loader import load
from lbmux.config.models import MAX_BACKENDS, Config
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import HEADROOM_BYTES
from lbmux.linux.next_hops import NextHop
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.targets.bpf.maps import MUX_SLOT, KernelTables
from lbmux.targets.bpf.syscall import Attach, create_program_slot
from lbmux.targets.bpf.test_runs import TestRunner, on_first_cpu
from lbmux.targets.bpf.xdp_programs import XDP_TX
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables, now_ticks

SERVICES, POOLS = MAX_BACKENDS, 64
FIRST_VIP = IPv4Address("100.64.0.0")
HOP = NextHop(1, mac_to_int("02:00:00:00:00:01"), mac_to_int("02:00:00:00:00:02"), 1500)
DESTINATION_AT = 30
KERNEL_STEP = 13
"""One service in so many gets a packet in the kernel."""


def run() -> list[Result]:
    name, before = f"{SERVICES:,} services x 1 backend", _resident_bytes()
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "services.yaml")
        file.write_text("\n".join(_lines()))
        start = time.perf_counter()
        config = load(file)
        from_yaml = time.perf_counter() - start
        mux = _in_force(config, Tables.allocate(sizes_for(config)))
        ready, used = time.perf_counter() - start, _resident_bytes() - before
        start = time.perf_counter()
        load(file)
        from_snapshot = time.perf_counter() - start
    planned, committed = (1000 * statistic for statistic in _weight_changed(mux, config))
    return [
        Result("many_services", f"{name}: from the YAML", from_yaml, "s"),
        Result("many_services", f"{name}: from the YAML to tables in force", ready, "s", goal="< 15"),
        Result("many_services", f"{name}: from the snapshot", from_snapshot, "s"),
        Result("many_services", f"{name}: configuration and tables", used / 2**20, "MiB", goal="< 2048"),
        Result("many_services", f"{name}: one weight planned", planned, "ms of CPU time", goal="< 50"),
        Result("many_services", f"{name}: one weight committed", committed, "ms of CPU time", goal="< 2"),
        Result("many_services", f"{name}: forwarded in user space", _forwarded(mux.tables), "of packets", goal="= 1"),
        Result("many_services", f"{name}: forwarded in the kernel", _forwarded_by_kernel(config), "of packets",
               goal="= 1"),
    ]  # fmt: skip


def _lines() -> Iterator[str]:
    yield "maglev: {size: auto}\npools:"
    yield from (f"  p{pool}: [{{dip: 10.1.0.{pool + 1}, port: 8080}}]" for pool in range(POOLS))
    yield "services:"
    for number in range(SERVICES):
        yield f"  - name: s{number}\n    vip: {FIRST_VIP + number}\n    protocol: tcp\n    port: 80"
        yield f"    pool: p{number % POOLS}"
    yield ""


def _in_force(config: Config, tables: Tables) -> MuxTables:
    mux = MuxTables(tables, *LOCAL)
    mux.commit(mux.plan(config))
    mux.start()
    for destination in mux.destinations():
        mux.set_next_hop(destination, HOP)
    return mux


def _weight_changed(mux: MuxTables, config: Config) -> tuple[float, float]:
    """Return the seconds of CPU time in which one of the services is planned and committed with another weight."""
    first, *others = config.services
    backends = tuple(backend.model_copy(update={"weight": 2}) for backend in first.backends)
    changed = config.model_copy(update={"services": (first.model_copy(update={"backends": backends}), *others)})
    plans = []
    return cpu_s(lambda: plans.append(mux.plan(changed))), cpu_s(lambda: mux.commit(plans[0]))


def _forwarded(tables: Tables) -> float:
    """Send one packet to each service. Return the share of those that are forwarded."""
    frames = Frames(SERVICES)
    vips = (int(FIRST_VIP) + np.arange(SERVICES)).astype(">u4").view(np.uint8).reshape(-1, 4)
    at = HEADROOM_BYTES + DESTINATION_AT
    frames.memory[:, at : at + 4] = vips
    Worker(tables).forward(frames.batch, now_ticks())
    return float(np.mean(frames.batch.verdict[:SERVICES] == Verdict.FORWARDED))


def _forwarded_by_kernel(config: Config) -> float:
    """Send a packet to some of the services. Return the share of those that the kernel program sends back."""
    slot, frame = create_program_slot("slot"), tcp_frame()
    with KernelTables.create(sizes_for(config, (os.cpu_count() or 1) + 1)) as kernel:
        _in_force(config, kernel.tables)
        program = kernel.load("mux_xdp", Attach.XDP, rings={MUX_SLOT: slot}).descriptor
        runner = TestRunner(program)

        def is_sent(number: int) -> bool:
            vip = (FIRST_VIP + number).packed
            return runner.run(frame[:DESTINATION_AT] + vip + frame[DESTINATION_AT + 4 :]).result == XDP_TX

        with on_first_cpu():
            sent = [is_sent(number) for number in range(0, SERVICES, KERNEL_STEP)]
        for descriptor in (program, slot):
            os.close(descriptor)
    return float(np.mean(sent))


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
