"""The interpreter does what the native target does, and what the standard says of single instructions."""

import struct
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest

from bench.bpf_machine import INSTRUCTION, Machine
from lbmux.datapath.context import TABLE_SYMBOL, TABLES
from lbmux.targets.bpf import objects
from lbmux.targets.bpf.maps import numbers_of
from tests.datapath.craft import Stream
from tests.datapath.harness import Frames
from tests.datapath.harness import Machine as Native
from tests.datapath.test_mux import backends, destinations, services
from tests.targets.bpf.test_equal import LOOPBACK, mux_action
from tests.targets.bpf.twins import copy_tables

EXIT = (0x95, 0, 0, 0)
FRAME = bytes(64)
NOW = 7
MINUS_ONE = 0xFFFFFFFFFFFFFFFF


def run(*instructions: tuple[int, int, int, int]) -> int:
    """The lower half of register 0 after instructions: (code, target and source, offset, immediate)."""
    return Machine(b"".join(INSTRUCTION.pack(*one) for one in (*instructions, EXIT)), {}).run(FRAME).result


def moved(code: int, left: int, right: int) -> int:
    """What an operation makes of two numbers; 64 bits of them are folded into 32."""
    return run((0xB7, 0, 0, left), (code, 0, 0, right))


@pytest.mark.parametrize(
    ("code", "left", "right", "result"),
    [
        (0x07, 5, -7, 0xFFFFFFFE), (0x17, 5, 7, 0xFFFFFFFE), (0x27, -3, 5, 0xFFFFFFF1), (0x37, 7, 2, 3),
        (0x37, 7, 0, 0), (0x97, 7, 4, 3), (0x97, 7, 0, 7), (0x47, 5, 2, 7), (0x57, 7, 5, 5), (0xA7, 7, -1, 0xFFFFFFF8),
        (0x67, 1, 31, 0x80000000), (0x77, -1, 60, 15), (0xC7, -8, 2, 0xFFFFFFFE), (0x87, 1, 0, 0xFFFFFFFF),
        (0x74, -1, 28, 15), (0xC4, -8, 1, 0xFFFFFFFC), (0x64, 1, 33, 2), (0xDC, 0x1234, 16, 0x3412),
        (0xDC, 0x01020304, 32, 0x04030201),
    ],
)  # fmt: skip
def test_arithmetic(code: int, left: int, right: int, result: int) -> None:
    assert moved(code, left, right) == result


def test_an_operation_on_32_bits_clears_the_upper_half() -> None:
    assert run((0xB7, 0, 0, -1), (0x04, 0, 0, 1), (0x77, 0, 0, 32)) == 0


@pytest.mark.parametrize(
    ("code", "value", "taken"),
    [
        (0x15, 3, True), (0x55, 3, False), (0x25, 2, True), (0x35, 3, True), (0xA5, 4, True), (0xB5, 2, False),
        (0x45, 4, False), (0x25, -1, False), (0x65, -1, True), (0x75, -1, True), (0xC5, -1, False), (0xD5, 3, True),
        (0x26, -1, False), (0x66, -1, True),
    ],
)  # fmt: skip
def test_jumps_from_3(code: int, value: int, taken: bool) -> None:
    assert run((0xB7, 0, 0, 3), (code, 0, 1, value), EXIT, (0xB7, 0, 0, 1)) == (1 if taken else 3)


def test_stack_and_spills() -> None:
    code = [(0xB7, 1, 0, -2), (0x7B, 0x1A, -8, 0), (0x61, 0xA0, -4, 0), (0x72, 0x0A, -1, 0x7F), EXIT]
    count = Machine(b"".join(INSTRUCTION.pack(*one) for one in code), {}).run(FRAME)
    assert (count.result, count.instructions, count.spills) == (0xFFFFFFFF, 5, 3)


def test_a_load_past_the_frame_fails() -> None:
    with pytest.raises(IndexError, match="8 bytes"):
        run((0x61, 0x12, 4, 0), (0x79, 0x20, 0, 0))


def test_a_helper_or_an_instruction_that_it_lacks_is_named() -> None:
    with pytest.raises(NotImplementedError, match="helper 1"):
        run((0x85, 0, 0, 1))
    with pytest.raises(NotImplementedError, match="0xc3"):
        run((0xC3, 0x0A, -8, 0))


@pytest.mark.parametrize(
    ("operation", "kept", "returned"),
    [(0x00, 17, 5), (0x01, 17, 12), (0x41, 13, 12), (0x51, 4, 12), (0xA1, 9, 12)],
    ids=["add", "fetch and add", "fetch and or", "fetch and and", "fetch and xor"],
)
def test_an_atomic_operation_on_12_with_5(operation: int, kept: int, returned: int) -> None:
    code = (0xB7, 1, 0, 12), (0x7B, 0x1A, -8, 0), (0xB7, 1, 0, 5), (0xDB, 0x1A, -8, operation)
    assert run(*code, (0x79, 0xA0, -8, 0), EXIT) == kept
    assert run(*code, (0xBF, 0x10, 0, 0), EXIT) == returned


@pytest.mark.parametrize(("expected", "kept"), [(12, 5), (13, 12)], ids=["the same", "another"])
def test_a_compare_and_exchange_of_12_by_5(expected: int, kept: int) -> None:
    code = (0xB7, 1, 0, 12), (0x7B, 0x1A, -8, 0), (0xB7, 1, 0, 5), (0xB7, 0, 0, expected), (0xDB, 0x1A, -8, 0xF1)
    assert run(*code, EXIT) == 12
    assert run(*code, (0x79, 0xA0, -8, 0), EXIT) == kept


def frames() -> Iterator[bytes]:
    return (frame for frame in Stream(5, destinations()).frames() if len(frame) >= 14)


def test_the_mux_does_what_it_does_natively() -> None:
    """Frames with anything that can be wrong, and the tables behind them."""
    native, twin = (Native.make(16, plain=True) for _ in range(2))
    native.install_mux(services(), backends())
    native.tables.backends["interface"][:3] = 0, LOOPBACK, 7
    copy_tables(native.tables, twin.tables)
    originals = list(islice(frames(), 150))
    batch, memory = Frames(originals), [twin.tables.memory[name] for name in TABLES]
    native.worker.forward(batch, NOW)
    numbers = numbers_of(twin.tables.sizes, {"jiffy_ns": 0, "jiffy_offset_ns": NOW << 20})
    maps = {TABLE_SYMBOL + name: at for at, name in enumerate(TABLES)}
    code = objects.compiled(":mux_xdp").program(objects.SECTION, maps, numbers)
    machine = Machine(code, {at: memoryview(rows) for at, rows in enumerate(memory)})
    interfaces = batch.interface.tolist()
    for frame, (verdict, _, after), interface in zip(originals, batch.results(), interfaces, strict=True):
        count = machine.run(frame)
        assert (count.result, count.frame) == (mux_action(verdict, interface), after), frame.hex()
    for name, rows in zip(TABLES, memory, strict=True):
        size = twin.tables.sizes.regions()[name]
        assert np.array_equal(rows[:size], native.tables.memory[name][:size]), name


def test_context_is_as_the_kernel_lays_it_out() -> None:
    start, end = run((0x61, 0x10, 0, 0)), run((0x61, 0x10, 4, 0))
    assert end - start == len(FRAME) and run((0x61, 0x10, 12, 0)) == LOOPBACK and struct.calcsize("<6I") == 24
