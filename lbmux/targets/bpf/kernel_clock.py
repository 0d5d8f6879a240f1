"""The conversion from jiffies to the data path's time: the length of a jiffy, and the offset from CLOCK_MONOTONIC.

The kernel advances both with the same tick, so their difference stays within one jiffy: the order of the two updates
varies, and the clock is adjusted by a few parts per billion. A BPF program reads both to measure the offset.
"""

import os
import statistics
import struct
import time
from functools import cache

from lbmux.targets.bpf import objects, syscall
from lbmux.targets.bpf.syscall import Attach
from lbmux.targets.bpf.test_runs import TestRunner

CLOCK_MONOTONIC_COARSE = 6  # linux/time.h; the time module does not name it
PROGRAM = "clock_xdp"
CLOCKS = struct.Struct("<QQ")
READINGS = 9
"""A tick may fall between the two reads of one reading, so the median of several is used."""


@cache
def numbers() -> dict[str, int]:
    """Return the values of lbmux.datapath.context.CLOCK for this kernel."""
    jiffy_ns = round(time.clock_getres(CLOCK_MONOTONIC_COARSE) * 1e9)
    code = objects.compiled(PROGRAM).program(objects.SECTION, {}, {})
    program = syscall.load_program(Attach.XDP, code, "lbmux_clock").descriptor
    try:
        runner = TestRunner(program)
        readings = [CLOCKS.unpack_from(runner.run(bytes(64)).frame) for _ in range(READINGS)]
    finally:
        os.close(program)
    offset_ns = statistics.median_low(coarse_ns - jiffies * jiffy_ns for jiffies, coarse_ns in readings)
    return {"jiffy_ns": jiffy_ns, "jiffy_offset_ns": offset_ns}
