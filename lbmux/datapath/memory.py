"""Typed views on raw memory: the lowest layer of the data path.

These Numba intrinsics lower to the LLVM that a C compiler would emit for pointers and structs, so the same step runs
natively and passes the kernel's verifier. Everything above this file is ordinary Python that Numba compiles.

The verifier imposes two rules:

- layouts are naturally aligned (``layout`` ensures it): Numba loads unaligned records byte by byte;
- a bound is proved by a mask, by ``(hash * size) >> 32`` or by a test of a value read from memory. The verifier does
  not understand a bound that comes from ``%``.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import from_dtype, njit, types
from numba.extending import intrinsic

from lbmux.codegen.pipeline import StepCompiler

i8, i16, i32, i64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
Pointer = types.voidptr
u8, u16, u32, u64 = types.uint8, types.uint16, types.uint32, types.uint64
int32, int64 = types.int32, types.int64

STEP_OPTIONS = {
    "forceinline": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True,
    "pipeline_class": StepCompiler, "_nrt": False,
}  # fmt: skip


def step(function: Any) -> Any:
    """Make a function a step of the data path: pure, without exceptions, inlined into every target that calls it.

    Constant arguments are typed as ordinary numbers: Numba would compile the step again for each constant.
    """
    dispatcher = njit(**STEP_OPTIONS)(function)
    original = dispatcher.get_call_template
    dispatcher.get_call_template = lambda args, kws: original(tuple(map(types.unliteral, args)), kws)
    return dispatcher


def layout(*fields: tuple[str, str]) -> np.dtype[Any]:
    """Return a C struct as a NumPy dtype with natural alignment. It has no nested arrays, which need refcounts."""
    return np.dtype(list(fields), align=True)


def offset_by(builder: ir.IRBuilder, pointer: ir.Value, offset: ir.Value) -> ir.Value:
    """Return the LLVM for ``(char *)pointer + offset``."""
    return builder.gep(pointer, [offset], inbounds=True, source_etype=i8)


def header(dtype: np.dtype[Any]) -> Any:
    """Return an intrinsic: ``header(IPV4)(frame, 14)`` is the record of that layout at byte 14 of the frame."""
    record = from_dtype(dtype)

    @intrinsic
    def at(typing: Any, pointer: Any, offset: Any) -> Any:
        def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.bitcast(offset_by(builder, *args), lowering.get_value_type(record))

        return record(Pointer, types.int64), lower

    return at


def rows(dtype: np.dtype[Any]) -> Any:
    """Return an intrinsic: ``rows(FLOW)(table, 3)`` is the fourth record of a table of that layout."""
    record, size = from_dtype(dtype), dtype.itemsize

    @intrinsic
    def row(typing: Any, table: Any, index: Any) -> Any:
        def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
            place = offset_by(builder, args[0], builder.mul(args[1], ir.Constant(i64, size)))
            return builder.bitcast(place, lowering.get_value_type(record))

        return record(Pointer, types.int64), lower

    return row


@intrinsic
def advance(typing: Any, pointer: Any, offset: Any) -> Any:
    """Return the pointer advanced by ``offset`` bytes."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        return offset_by(builder, *args)

    return Pointer(Pointer, types.int64), lower


@intrinsic
def beyond(typing: Any, pointer: Any, end: Any) -> Any:
    """Return whether ``pointer`` is past ``end``: the bounds check that the verifier understands."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.icmp_unsigned(">", args[0], args[1])

    return types.boolean(Pointer, Pointer), lower


@intrinsic
def at_address(typing: Any, address: Any) -> Any:
    """Return an integer address (``array.ctypes.data``) as a pointer: native code only."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], i8.as_pointer())

    return Pointer(types.uint64), lower


@intrinsic
def barrier_var(typing: Any, value: Any) -> Any:
    """Return the value, but hide it from the compiler, so that it does not turn arithmetic into a branch."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.asm(ir.FunctionType(i64, [i64]), "", "=r,0", [args[0]], side_effect=False)

    return types.uint64(types.uint64), lower


@intrinsic
def reread(typing: Any, pointer: Any) -> Any:
    """Return the pointer, but make the compiler load again what it points to."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = i8.as_pointer()
        return builder.asm(ir.FunctionType(kind, [kind]), "", "=r,0", [args[0]], side_effect=False)

    return Pointer(Pointer), lower


def _swap(kind: Any) -> Any:
    @intrinsic
    def swap(typing: Any, value: Any) -> Any:
        def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.bswap(args[0])

        return kind(kind), lower

    return swap


swap16, swap32, swap64 = _swap(types.uint16), _swap(types.uint32), _swap(types.uint64)
"""Convert between network byte order and the machine's (little-endian, as eBPF here)."""


@intrinsic
def prefetch(typing: Any, pointer: Any) -> Any:
    """Prefetch a cache line that will soon be written: native code only."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [i8.as_pointer(), i32, i32, i32])
        name = "llvm.prefetch.p0"
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(function, [args[0], ir.Constant(i32, 1), ir.Constant(i32, 3), ir.Constant(i32, 1)])
        return lowering.get_dummy_value()

    return types.void(Pointer), lower


@intrinsic
def unlikely(typing: Any, condition: Any) -> Any:
    """Return the condition, and hint to the compiler that it is rarely true."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        bit, name = ir.IntType(1), "llvm.expect.i1"
        kind = ir.FunctionType(bit, [bit, bit])
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        return builder.call(function, [args[0], ir.Constant(bit, 0)])

    return types.boolean(types.boolean), lower
