"""Programs run without a network, by BPF_PROG_TEST_RUN: on one frame, for tests and timing, or as a stream.

In live-frames mode the kernel makes real frames of the one it is given, and does with them what the program
says: that is the benchmark's packet generator.
"""

import ctypes
import struct
from dataclasses import dataclass

from lbmux.targets.bpf.syscall import Command, command

ATTRIBUTES = struct.Struct("<IIIIQQIIIIQQIII4x")
"""prog_fd, retval, data_size_in and _out, data_in and _out, repeat, duration, ctx_size_in and _out, ctx_in and
_out, flags, cpu, batch_size."""
CONTEXT = struct.Struct("<6I")
"""struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex."""
LIVE_FRAMES = 1 << 1
OUTPUT_BYTES = 1 << 16


@dataclass(frozen=True)
class Run:
    """What a program made of a frame: its return value, the frame then, and nanoseconds a run (the average)."""

    result: int
    frame: bytes
    duration_ns: int


class TestRunner:
    """Runs a program on frames; the buffers are made once."""

    __test__ = False  # not a test case, whatever its name begins with

    def __init__(self, program: int) -> None:
        self._program = program
        self._output = ctypes.create_string_buffer(OUTPUT_BYTES)
        self._attributes = ctypes.create_string_buffer(ATTRIBUTES.size)

    def run(self, frame: bytes, repeat: int = 1) -> Run:
        """``repeat`` does not put the frame back: the second run sees what the first made of it."""
        output, attributes = self._output, self._attributes
        ATTRIBUTES.pack_into(
            attributes, 0, self._program, 0, len(frame), len(output), _address(frame), ctypes.addressof(output),
            repeat, *(0,) * 8,
        )  # fmt: skip
        command(Command.PROG_TEST_RUN, attributes, f"test run on {len(frame)} bytes")
        _, result, _, length, _, _, _, duration, *_ = ATTRIBUTES.unpack(attributes)
        return Run(result, ctypes.string_at(output, length), duration)


def _address(data: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def run_live(program: int, frame: bytes, repeat: int, interface_index: int, batch: int = 64) -> float:
    """Take ``repeat`` frames through the program as if ``interface_index`` had received them, and do what it says.

    Returns nanoseconds a frame, to the nanosecond, without what it takes to begin and to end (some 30 ms).  One call
    works until all are through, without the interpreter's lock.  Frames are recycled: the program finds in them what
    was last made of them.
    """
    context = CONTEXT.pack(0, len(frame), 0, interface_index, 0, 0)
    packed = ATTRIBUTES.pack(
        program, 0, len(frame), 0, _address(frame), 0, repeat, 0, len(context), 0, _address(context), 0,
        LIVE_FRAMES, 0, batch,
    )  # fmt: skip
    attributes = ctypes.create_string_buffer(packed, len(packed))
    command(Command.PROG_TEST_RUN, attributes, "live frames")
    return float(ATTRIBUTES.unpack(attributes)[7])
