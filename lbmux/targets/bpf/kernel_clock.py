"""How jiffies become the data path's time: their length, and what they are short of CLOCK_MONOTONIC.

The kernel steps both with the same tick, so the difference stays within one step: which of the two a tick moves
first varies, and the clock is steered by some billionths.  It is asked for by a program that reads both.
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
"""Between two reads of one of them a step may fall."""


@cache
def numbers() -> dict[str, int]:
    """What a program needs as lbmux.datapath.context.CLOCK."""
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
