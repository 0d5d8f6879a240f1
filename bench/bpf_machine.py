"""A BPF interpreter that counts: how many instructions a program executes for a frame, and how many of them are spills.

The kernel has no such counter. The interpreter covers what LLVM's BPF back end emits at v3 (of the atomic operations
those of 64 bits), and the helpers that the mux calls for a packet (RFC 9669 specifies the instructions).
"""

import operator
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lbmux.datapath.context import HELPER_CPU, HELPER_JIFFIES
from lbmux.datapath.frame import HELPER_ADJUST_HEAD, HELPER_BUFFER_LENGTH, HELPER_REDIRECT, XDP_DATA, XDP_DATA_END
from lbmux.targets.bpf.elf import LOAD_64, MAP_VALUE

INSTRUCTION = struct.Struct("<BBhi")
CONTEXT = struct.Struct("<6I")
"""struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex."""
HEADROOM_BYTES, STACK_BYTES, LOOPBACK = 256, 512, 1
FRAME_AT = 0
CONTEXT_AT, STACK_AT, MAPS_AT = 1, 2, 3
"""The upper halves of addresses. Pointers in the kernel's context have 32 bits, so frames have the lowest addresses."""
XDP_REDIRECT = 4
STACK_REGISTER = 10
SIZES = {0x10: 1, 0x08: 2, 0x00: 4, 0x18: 8}
LOAD, STORE, STORE_REGISTER, ALU, JUMP, JUMP32, ALU64 = range(1, 8)
ATOMIC_64, FETCH, COMPARE_EXCHANGE = 0xDB, 0x01, 0xF1
MEM, SOURCE_REGISTER, CALL, EXIT, NEGATE, BYTE_ORDER, ALWAYS = 0x60, 0x08, 0x80, 0x90, 0x80, 0xD0, 0x00

ARITHMETIC: dict[int, Callable[[int, int], int]] = {
    0x00: operator.add, 0x10: operator.sub, 0x20: operator.mul, 0x30: lambda a, b: a // b if b else 0,
    0x40: operator.or_, 0x50: operator.and_, 0x90: lambda a, b: a % b if b else a, 0xA0: operator.xor,
    0xB0: lambda a, b: b,
}  # fmt: skip
"""Functions of two unsigned numbers, by operation. Shifts depend on the width."""
UNSIGNED: dict[int, Callable[[int, int], bool]] = {
    0x10: operator.eq, 0x20: operator.gt, 0x30: operator.ge, 0x40: lambda a, b: bool(a & b), 0x50: operator.ne,
    0xA0: operator.lt, 0xB0: operator.le,
}  # fmt: skip
SIGNED: dict[int, Callable[[int, int], bool]] = {
    0x60: operator.gt, 0x70: operator.ge, 0xC0: operator.lt, 0xD0: operator.le,
}  # fmt: skip


def signed(number: int, bits: int) -> int:
    return number - (1 << bits) if number >> (bits - 1) else number


@dataclass(frozen=True)
class Count:
    """A run: the program's result, the frame afterwards, and the places of the instructions that were executed."""

    result: int
    frame: bytes
    places: tuple[int, ...]
    spills: int

    @property
    def instructions(self) -> int:
        return len(self.places)


class Machine:
    """Runs ``code``, in which maps are numbered (Object.program), on the memory of these maps."""

    def __init__(self, code: bytes, maps: Mapping[int, memoryview]) -> None:
        self._code = list(INSTRUCTION.iter_unpack(code))
        self._memory: dict[int, memoryview] = {MAPS_AT + number: memory for number, memory in maps.items()}

    def run(self, frame: bytes) -> Count:
        """Run the program on a frame that the loopback interface received, as a test run does."""
        memory = self._memory
        memory[FRAME_AT] = memoryview(bytearray(HEADROOM_BYTES) + bytearray(frame))
        memory[STACK_AT] = memoryview(bytearray(STACK_BYTES))
        end = len(memory[FRAME_AT])
        memory[CONTEXT_AT] = memoryview(bytearray(CONTEXT.pack(HEADROOM_BYTES, end, HEADROOM_BYTES, LOOPBACK, 0, 0)))
        self._registers = [0] * (STACK_REGISTER + 1)
        self._registers[1], self._registers[STACK_REGISTER] = CONTEXT_AT << 32, (STACK_AT << 32) + STACK_BYTES
        place, places, spills = 0, [], 0
        while True:
            code, registers, offset, immediate = self._code[place]
            target, source = registers & 15, registers >> 4
            places.append(place)
            base = source if code & 7 == LOAD else target
            spills += LOAD <= code & 7 <= STORE_REGISTER and base == STACK_REGISTER
            if code in (JUMP | EXIT, JUMP | ALWAYS):
                if code == JUMP | EXIT:
                    start = CONTEXT.unpack(memory[CONTEXT_AT])[0]
                    return Count(self._registers[0] & 0xFFFFFFFF, bytes(memory[FRAME_AT][start:]), (*places,), spills)
                place += offset
            elif self._step(code, target, source, offset, immediate, place):
                place += offset
            place += 2 if code == LOAD_64 else 1

    def _step(self, code: int, target: int, source: int, offset: int, immediate: int, place: int) -> bool:
        """Execute one instruction. Return whether a conditional jump is taken."""
        kind = code & 7
        if kind in (JUMP, JUMP32):
            if code == JUMP | CALL:
                self._registers[0] = self._call(immediate)
                return False
            return self._compare(code, target, source, immediate)
        if code == LOAD_64:
            high = self._code[place + 1][3]
            self._registers[target] = (
                (MAPS_AT + immediate << 32) + high
                if source == MAP_VALUE >> 4
                else (high & 0xFFFFFFFF) << 32 | immediate & 0xFFFFFFFF
            )
        elif kind in (ALU, ALU64):
            self._registers[target] = self._arithmetic(code, target, source, immediate)
        elif code == ATOMIC_64:
            self._atomic(immediate, self._registers[target] + offset, source)
        elif code & 0xE0 != MEM:
            raise NotImplementedError(f"instruction {code:#x} at {place}")
        elif kind == LOAD:
            self._registers[target] = self._load(self._registers[source] + offset, SIZES[code & 0x18])
        else:
            value = immediate if kind == STORE else self._registers[source]
            self._store(self._registers[target] + offset, SIZES[code & 0x18], value)
        return False

    def _atomic(self, operation: int, address: int, source: int) -> None:
        """Change a word: by arithmetic, with or without fetching what was there, or by compare-and-exchange."""
        before, operand = self._load(address, 8), self._registers[source]
        if operation == COMPARE_EXCHANGE:
            after = operand if before == self._registers[0] else before
            self._registers[0] = before
        else:
            after = ARITHMETIC[operation & ~FETCH](before, operand)
            if operation & FETCH:
                self._registers[source] = before
        self._store(address, 8, after)

    def _compare(self, code: int, target: int, source: int, immediate: int) -> bool:
        bits = 64 if code & 7 == JUMP else 32
        mask = (1 << bits) - 1
        left = self._registers[target] & mask
        right = (self._registers[source] if code & SOURCE_REGISTER else immediate) & mask
        operation = code & 0xF0
        if operation in SIGNED:
            return SIGNED[operation](signed(left, bits), signed(right, bits))
        return UNSIGNED[operation](left, right)

    def _arithmetic(self, code: int, target: int, source: int, immediate: int) -> int:
        bits, operation = 64 if code & 7 == ALU64 else 32, code & 0xF0
        mask, value = (1 << bits) - 1, self._registers[target]
        if operation == BYTE_ORDER:  # byte swap to big-endian, or unconditional
            return int.from_bytes((value & (1 << immediate) - 1).to_bytes(immediate // 8, "big"), "little")
        left = value & mask
        right = (self._registers[source] if code & SOURCE_REGISTER else immediate) & mask
        if operation == NEGATE:
            return -left & mask
        if operation == 0x60:
            return left << (right & bits - 1) & mask
        if operation == 0x70:
            return left >> (right & bits - 1)
        if operation == 0xC0:
            return signed(left, bits) >> (right & bits - 1) & mask
        return ARITHMETIC[operation](left, right) & mask

    def _place(self, address: int, size: int) -> tuple[memoryview, slice]:
        memory, at = self._memory[address >> 32], address & 0xFFFFFFFF
        if at + size > len(memory):
            raise IndexError(f"{size} bytes at {address:#x}")
        return memory, slice(at, at + size)

    def _load(self, address: int, size: int) -> int:
        memory, at = self._place(address, size)
        return int.from_bytes(memory[at], "little")

    def _store(self, address: int, size: int, value: int) -> None:
        memory, at = self._place(address, size)
        memory[at] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def _call(self, helper: int) -> int:
        """Call a helper. The clock is constant in the code (context.CLOCK), so any jiffies will do."""
        if helper in (HELPER_CPU, HELPER_JIFFIES):
            return 0
        if helper == HELPER_REDIRECT:
            return XDP_REDIRECT
        start = self._load((CONTEXT_AT << 32) + XDP_DATA, 4)
        if helper == HELPER_BUFFER_LENGTH:
            return self._load((CONTEXT_AT << 32) + XDP_DATA_END, 4) - start
        if helper != HELPER_ADJUST_HEAD:
            raise NotImplementedError(f"helper {helper}")
        start += signed(self._registers[2] & 0xFFFFFFFF, 32)
        if start < 0:
            return -1
        self._store((CONTEXT_AT << 32) + XDP_DATA, 4, start)
        return 0
