"""BPF_PROG_TEST_RUN: runs programs without a network, on one frame for tests and timing, or on a stream of frames.

In live-frames mode the kernel makes real frames from the given one and executes the program's actions. The benchmarks'
packet generator uses this.
"""

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from lbmux.targets.bpf.syscall import Command, command

ATTRIBUTES = struct.Struct("<IIIIQQIIIIQQIII4x")
"""union bpf_attr: prog_fd, retval, data_size_in and _out, data_in and _out, repeat, duration, ctx_size_in and _out,
ctx_in and _out, flags, cpu, batch_size."""
CONTEXT = struct.Struct("<6I")
"""struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex."""
LIVE_FRAMES = 1 << 1
OUTPUT_BYTES = 1 << 16


@dataclass(frozen=True)
class Run:
    """The outcome of a run: the program's return value, the frame afterwards, and average nanoseconds per run."""

    result: int
    frame: bytes
    duration_ns: int


class TestRunner:
    """Runs a program on frames, with buffers that are allocated once."""

    __test__ = False  # not a test case, despite its name

    def __init__(self, program: int) -> None:
        self._program = program
        self._output = ctypes.create_string_buffer(OUTPUT_BYTES)
        self._attributes = ctypes.create_string_buffer(ATTRIBUTES.size)

    def run(self, frame: bytes, repeat: int = 1) -> Run:
        """Run the program ``repeat`` times. The frame is not reset between runs."""
        output, attributes = self._output, self._attributes
        ATTRIBUTES.pack_into(
            attributes, 0, self._program, 0, len(frame), len(output), _address(frame), ctypes.addressof(output),
            repeat, *(0,) * 8,
        )  # fmt: skip
        command(Command.PROG_TEST_RUN, attributes, f"test run on {len(frame)} bytes")
        _, result, _, length, _, _, _, duration, *_ = ATTRIBUTES.unpack(attributes)
        return Run(result, ctypes.string_at(output, length), duration)


@contextlib.contextmanager
def on_first_cpu() -> Iterator[None]:
    """Run test runs on CPU 0: in the kernel the worker is the CPU's number."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _address(data: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def run_live(program: int, frame: bytes, repeat: int, interface_index: int, batch: int = 64) -> float:
    """Pass ``repeat`` frames through the program as if ``interface_index`` had received them, and execute its actions.

    Return nanoseconds per frame, without set-up and tear-down (some 30 ms). The call blocks until all frames are done
    and releases the GIL. Frames are recycled: the program finds them as it last left them.
    """
    context = CONTEXT.pack(0, len(frame), 0, interface_index, 0, 0)
    packed = ATTRIBUTES.pack(
        program, 0, len(frame), 0, _address(frame), 0, repeat, 0, len(context), 0, _address(context), 0,
        LIVE_FRAMES, 0, batch,
    )  # fmt: skip
    attributes = ctypes.create_string_buffer(packed, len(packed))
    command(Command.PROG_TEST_RUN, attributes, "live frames")
    return float(ATTRIBUTES.unpack(attributes)[7])
