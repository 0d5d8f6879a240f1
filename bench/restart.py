"""Packets lost while the daemon restarts, and the time until the kernel program is attached.

10,000 packets per second pass while the mux is stopped and started, killed and started, and restarted with tables of
another size, into which its flows must be migrated.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time

from bench.live import Bed
from bench.report import Result, median
from lbmux.lab import namespaces
from lbmux.lab.processes import end, kill, python
from lbmux.lab.topology import Program

PPS, SECONDS = 10_000, 6.0
RESTARTS = (
    ("stopped and started", signal.SIGTERM, None),
    ("killed and started", signal.SIGKILL, None),
    ("stopped and started with larger tables", signal.SIGTERM, 1 << 21),
)
MUX = Program("mux", "lbmux.cli.main", ("mux", "-c", "{config}", "-i", "b0", "--driver", "xdp", "--xdp-mode", "native",
                                        "--control", "{state}/ready.sock"))  # fmt: skip
LOAD = """
import time
import lbmux.cli.main  # what it sets for all commands
from lbmux.datapath.tables import Sizes
from lbmux.frames.xdp import Kernel
from lbmux.targets.bpf.syscall import Attach
imported = time.perf_counter()
kernel = Kernel("b0", Sizes(workers=3))
kernel.attach({Attach.XDP: "mux_xdp"})
print(time.perf_counter() - imported)
kernel.detach()
"""


def run() -> list[Result]:
    results = []
    with Bed(takes_xdp=True) as bed:
        for name, number, limit in RESTARTS:
            bed.start_mux("xdp")
            sent, back = _restarted(bed, number, limit)
            bed.detach()
            bed.lab.write_config(bed.lab.topology.config)
            note = f"{sent - back} of {sent} lost"
            results.append(Result("restart", f"packets lost, {name}", sent - back, "packets", goal="0", note=note))
        cold = median(lambda: _load(bed, None))
        with tempfile.TemporaryDirectory() as cache:
            _load(bed, cache)
            cached = median(lambda: _load(bed, cache))
        ready = median(lambda: _seconds_to_ready(bed))
    results.append(Result("restart", "process started until it forwards", ready, "s", note="compiled before"))
    results.append(Result("restart", "compiled, loaded, attached", cold, "s", goal="< 3"))
    name = "loaded, attached, compiled before"
    results.append(Result("restart", name, cached, "s", "compiled now", cached / cold, "< 0.5"))
    return results


def _restarted(bed: Bed, number: signal.Signals, limit: int | None) -> tuple[int, int]:
    """Return (sent, came back) over a restart. ``limit`` is another limit of flows."""
    before = bed.lab.inside("generator", lambda: namespaces.packet_counters("a0"))
    command = python("bench.send", "a0", "--seconds", str(SECONDS), "--pps", str(PPS))
    with bed.lab.popen("generator", command, stdout=subprocess.PIPE, text=True) as sender:
        time.sleep(1.5)
        process = bed.process
        kill(process, number)
        while process.alive:
            time.sleep(0.01)
        time.sleep(0.5)
        if limit is not None:
            bed.lab.write_config(bed.lab.topology.config | {"flows": {"limit": limit}})
        bed.start_mux("xdp")
        assert sender.stdout is not None
        sender.wait()
        time.sleep(0.3)
    after = bed.lab.inside("generator", lambda: namespaces.packet_counters("a0"))
    return after[1] - before[1], after[0] - before[0]


def _seconds_to_ready(bed: Bed) -> float:
    """Return the seconds until ``lbmux mux`` is ready, including the interpreter and its imports."""
    begun = time.perf_counter()
    process = bed.lab.start(bed.lab.topology.node("mux"), MUX)
    passed = time.perf_counter() - begun
    end([process])
    bed.detach()
    return passed


def _load(bed: Bed, cache: str | None) -> float:
    """Return the seconds from a process's imports to its first packets. Without a cache it compiles everything."""
    with tempfile.TemporaryDirectory() as fresh:
        environment = os.environ | {"LBMUX_CACHE": cache or fresh}
        done = bed.lab.run("mux", [sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)
