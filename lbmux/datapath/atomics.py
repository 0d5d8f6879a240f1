"""Atomic operations on 64-bit words that all CPUs and user space share.

LLVM's BPF back end (``-mcpu=v3``) has ``cmpxchg`` and ``atomicrmw`` of 32 and 64 bits. It aborts the process on atomic
loads, stores and fences, so loads are plain ones there, which the compiler may not move. That is enough on x86, whose
loads are acquires. On other machines, such as arm64, an atomic operation on the stack is the barrier between loads: in
the kernel's memory model an operation that returns a value orders all accesses before it and after it (Linux,
Documentation/atomic_t.txt, "ORDERING"), and no other CPU uses its cache line.
"""

import platform
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lbmux.datapath.memory import Pointer, i64

ORDER = "seq_cst"
LOADS_ARE_ORDERED = platform.machine() == "x86_64"
"""Whether the CPUs of this machine execute loads in the program's order (Intel SDM, volume 3, section 9.2.2)."""


@intrinsic
def compare_exchange(typing: Any, pointer: Any, before: Any, after: Any) -> Any:
    """Write ``after`` if the word at ``pointer`` is ``before``. Return the word that was there."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = builder.bitcast(args[0], i64.as_pointer())
        return builder.extract_value(builder.cmpxchg(place, args[1], args[2], ORDER, ORDER), 0)

    return types.uint64(Pointer, types.uint64, types.uint64), lower


def _read_modify_write(operation: str, order: str) -> Any:
    @intrinsic
    def change(typing: Any, pointer: Any, value: Any) -> Any:
        def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.atomic_rmw(operation, builder.bitcast(args[0], i64.as_pointer()), args[1], order)

        return types.uint64(Pointer, types.uint64), lower

    return change


fetch_or, fetch_and, fetch_xor = (_read_modify_write(operation, ORDER) for operation in ("or", "and", "xor"))
"""Change the word at a pointer, and return what was there. No access moves past it in either direction."""
atomic_add = _read_modify_write("add", "monotonic")
"""Add to the word at a pointer, to which other workers may add at the same time. It orders no other access."""


def _load_barrier(builder: Any) -> None:
    """Keep the kernel target's earlier loads before its later ones."""
    used: list[Any] = []
    if not LOADS_ARE_ORDERED:
        zero = ir.Constant(i64, 0)
        with builder.goto_entry_block():
            place = builder.alloca(i64)
        builder.store(zero, place)
        used = [builder.atomic_rmw("or", place, zero, ORDER)]  # if it is not used, LLVM chooses one without order
    kinds, constraints = [value.type for value in used], ["r" for _ in used]
    builder.asm(ir.FunctionType(ir.VoidType(), kinds), "", ",".join([*constraints, "~{memory}"]), used, True)


def _load(is_last: bool) -> Any:
    @intrinsic
    def load(typing: Any, context: Any, pointer: Any) -> Any:
        def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
            place = builder.bitcast(args[1], i64.as_pointer())
            if context.target == "native":
                if is_last:
                    builder.fence("acquire")
                return builder.load_atomic(place, "acquire", align=8, typ=i64)
            if is_last:
                _load_barrier(builder)
            value = builder.load(place, typ=i64, align=8)
            if not is_last:
                _load_barrier(builder)
            return value

        return types.uint64(context, Pointer), lower

    return load


load_first = _load(is_last=False)
"""Return the word at a pointer, as an acquire load: what is read after it is not older."""
load_last = _load(is_last=True)
"""Return the word at a pointer. What was read before it is not newer."""
