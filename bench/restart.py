"""Packets lost while the daemon restarts, and how soon the kernel's program is there.

10,000 packets a second pass while the mux is stopped and started again, and while it is killed and started again.
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
from lbmux.lab.processes import kill, python

PPS, SECONDS = 10_000, 6.0
LOAD = """
import time
start = time.perf_counter()
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
        for name, number in (("stopped and started", signal.SIGTERM), ("killed and started", signal.SIGKILL)):
            bed.start_mux("xdp")
            sent, back = _lost(bed, number)
            bed.detach()
            note = f"{sent - back} of {sent} lost"
            results.append(Result("restart", f"packets lost, {name}", sent - back, "packets", goal="0", note=note))
        cold = median(lambda: _load(bed, None))
        with tempfile.TemporaryDirectory() as cache:
            _load(bed, cache)
            cached = median(lambda: _load(bed, cache))
    results.append(Result("restart", "compiled, loaded, attached", cold, "s", goal="< 3"))
    name = "loaded, attached, compiled before"
    results.append(Result("restart", name, cached, "s", "compiled now", cached / cold, "< 0.5"))
    return results


def _lost(bed: Bed, number: signal.Signals) -> tuple[int, int]:
    """(sent, came back) over a restart."""
    before = bed.lab.inside("generator", lambda: namespaces.packet_counters("a0"))
    command = python("bench.send", "a0", "--seconds", str(SECONDS), "--pps", str(PPS))
    with bed.lab.popen("generator", command, stdout=subprocess.PIPE, text=True) as sender:
        time.sleep(1.5)
        process = bed.process
        kill(process, number)
        while process.alive:
            time.sleep(0.01)
        time.sleep(0.5)
        bed.start_mux("xdp")
        assert sender.stdout is not None
        sender.wait()
        time.sleep(0.3)
    after = bed.lab.inside("generator", lambda: namespaces.packet_counters("a0"))
    return after[1] - before[1], after[0] - before[0]


def _load(bed: Bed, cache: str | None) -> float:
    """Seconds from a process' imports to packets; without a cache everything is compiled."""
    with tempfile.TemporaryDirectory() as fresh:
        environment = os.environ | {"LBMUX_CACHE": cache or fresh}
        done = bed.lab.run("mux", [sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)
