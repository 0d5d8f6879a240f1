"""The context of a step: where its tables are, its limits, the clock and the worker, for each target.

A step that accesses more than its arguments takes a ``context`` first. The context's Numba type names the target that
is being compiled, and each primitive lowers to that target's code, so a step is written once. Only this file and
frame.py, which has the primitives of a frame, differ by target:

==============  ================================  =======================================
primitive       native                            kernel (XDP, tc)
==============  ================================  =======================================
tables          an address in the CONTEXT record  an external symbol, resolved to a map
limits          a number in the CONTEXT record    an external symbol, patched to a number
frame, its end  fields of the CONTEXT record      fields of struct xdp_md or __sk_buff
grow, shrink    move the field                    bpf_xdp_adjust_head
clock, worker   fields of the CONTEXT record      the kernel's jiffies, the CPU's number
==============  ================================  =======================================
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from lbmux.datapath.memory import Pointer, i8, i32, i64, layout, offset_by
from lbmux.datapath.tables import TICK_SHIFT

TABLES = (
    "settings", "addresses", "services", "slots", "rules", "rates", "backends", "flows", "endpoints", "verdicts",
    "lookups", "traffic", "sources", "vips",
)  # fmt: skip
LIMITS = ("addresses", "services", "slots", "rules", "backends", "buckets", "endpoints", "workers", "sources")

CLOCK = ("jiffy_ns", "jiffy_offset_ns")
"""The numbers that convert jiffies to CLOCK_MONOTONIC. They are patched in like the limits, kernel only."""

CONTEXT = layout(
    *((f"{name}_table", "u8") for name in TABLES),
    *((f"{name}_limit", "u8") for name in LIMITS),
    ("frame", "u8"),
    ("end", "u8"),
    ("floor", "u8"),
    ("now", "u8"),
    ("worker", "u8"),
    ("flags", "u8"),
    ("arrived", "u8"),
    ("plain", "u8"),
)
"""The native context: addresses and numbers. ``floor`` is the lowest address that a frame may grow to. ``plain``
restricts the native target to what the kernel target does."""

TABLE_SYMBOL, LIMIT_SYMBOL = "lbmux_table_", "lbmux_limit_"
"""Prefixes of the kernel target's external symbols; the loader resolves them."""

HELPER_CPU, HELPER_JIFFIES, HELPER_TIME = 8, 118, 160


class Context(types.Type):  # type: ignore[misc]
    """The Numba type of a context; ``target`` is ``native``, ``xdp`` or ``tc``."""

    def __init__(self, target: str) -> None:
        super().__init__(name=f"Context({target})")
        self.target = target


register_model(Context)(models.OpaqueModel)
NATIVE, XDP, TC = Context("native"), Context("xdp"), Context("tc")


def native_field(builder: Any, context: Any, name: str) -> Any:
    """Return a pointer to a field of the native CONTEXT record."""
    pointer = offset_by(builder, context, ir.Constant(i64, CONTEXT.fields[name][1]))  # type: ignore[index]
    return builder.bitcast(pointer, i64.as_pointer())


def load_native(builder: Any, context: Any, name: str) -> Any:
    """Load a field of the native CONTEXT record."""
    return builder.load(native_field(builder, context, name), typ=i64, align=8)


def load_kernel(builder: Any, context: Any, offset: int) -> Any:
    """Load a 32-bit field of the kernel's context at an offset in bytes."""
    pointer = builder.bitcast(offset_by(builder, context, ir.Constant(i64, offset)), i32.as_pointer())
    return builder.zext(builder.load(pointer, typ=i32, align=4), i64)


def external_symbol(builder: Any, name: str) -> Any:
    """Return the address of an external symbol, which the loader resolves."""
    symbol = builder.module.globals.get(name) or ir.GlobalVariable(builder.module, i8, name)
    symbol.linkage = "external"
    return builder.bitcast(symbol, i8.as_pointer())


def hide_from_optimiser(builder: Any, value: Any) -> Any:
    """Hide a value from LLVM's optimiser: the verifier allows the difference of two pointers, but no other sum."""
    return builder.asm(ir.FunctionType(i64, [i64]), "", "=r,0", [value], side_effect=False)


def helper(builder: Any, number: int, result: Any, *arguments: Any) -> Any:
    """Call a BPF helper. The compiler replaces the symbol with the helper's number."""
    name = f"bpf_helper_{number}"
    kind = ir.FunctionType(result, [value.type for value in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)


def table(name: str) -> Any:
    """Return an intrinsic: ``table("flows")(context)`` is a pointer to the start of that table."""

    @intrinsic
    def start(typing: Any, context: Any) -> Any:
        def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
            if context.target == "native":
                return builder.inttoptr(load_native(builder, args[0], f"{name}_table"), i8.as_pointer())
            return external_symbol(builder, TABLE_SYMBOL + name)

        return Pointer(context), lower

    return start


def _limit(name: str) -> Any:
    @intrinsic
    def limit(typing: Any, context: Any) -> Any:
        def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
            if context.target == "native":
                return load_native(builder, args[0], f"{name}_limit")
            return builder.ptrtoint(external_symbol(builder, LIMIT_SYMBOL + name), i64)

        return types.int64(context), lower

    return limit


(
    settings, addresses, services, slots, rules, rates, backends, flows, endpoints, verdicts, lookups, traffic, sources,
    vips,
) = map(table, TABLES)  # fmt: skip
"""Pointers to the start of each table (tables.py)."""

(
    address_limit, service_limit, slot_limit, rule_limit, backend_limit, bucket_limit, endpoint_limit, worker_limit,
    source_limit,
) = map(_limit, LIMITS)  # fmt: skip
"""The number of rows of each table."""


@intrinsic
def clock(typing: Any, context: Any) -> Any:
    """Return the time in ticks (tables.TICK_SHIFT), modulo 2**32.

    The kernel target computes it from jiffies, which are one load. bpf_ktime_get_coarse_ns returns the same time and
    costs 13 ns.
    """

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        if context.target == "native":
            return builder.trunc(load_native(builder, args[0], "now"), i32)
        jiffy_ns, offset_ns = (builder.ptrtoint(external_symbol(builder, LIMIT_SYMBOL + name), i64) for name in CLOCK)
        nanoseconds = builder.add(builder.mul(helper(builder, HELPER_JIFFIES, i64), jiffy_ns), offset_ns)
        return builder.trunc(builder.lshr(nanoseconds, ir.Constant(i64, TICK_SHIFT)), i32)

    return types.uint32(context), lower


def _reading(number: int) -> Any:
    @intrinsic
    def read(typing: Any, context: Any) -> Any:
        if context.target == "native":
            return None

        def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
            return helper(builder, number, i64)

        return types.uint64(context), lower

    return read


jiffies, coarse_time = _reading(HELPER_JIFFIES), _reading(HELPER_TIME)
"""The kernel's own clocks, in jiffies and in nanoseconds. CLOCK is measured with them. Kernel only."""


@intrinsic
def current_worker(typing: Any, context: Any) -> Any:
    """Return the worker whose counters are used: in the kernel the number of the CPU. It may exceed the limit."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        if context.target == "native":
            return load_native(builder, args[0], "worker")
        return builder.zext(helper(builder, HELPER_CPU, i32), i64)

    return types.int64(context), lower


@intrinsic
def is_plain(typing: Any, context: Any) -> Any:
    """Return whether only headers at their usual offsets are parsed: always in the kernel, which punts the rest."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        if context.target != "native":
            return ir.Constant(ir.IntType(1), 1)
        return builder.icmp_unsigned("!=", load_native(builder, args[0], "plain"), ir.Constant(i64, 0))

    return types.boolean(context), lower


@intrinsic
def barrier(typing: Any, context: Any, value: Any, anything: Any) -> Any:
    """Return the value, but make the verifier forget what it knows about it. It then merges the paths that differ
    only in this value. ``anything`` is any number from memory."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        if context.target == "native":
            return args[1]
        return builder.add(args[1], builder.xor(args[2], hide_from_optimiser(builder, args[2])))

    return types.int64(context, types.int64, types.uint64), lower


@intrinsic
def context_at(typing: Any, address: Any) -> Any:
    """Return the native context whose CONTEXT record is at an address."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], i8.as_pointer())

    return NATIVE(types.uint64), lower


def _kernel_context(kind: Context) -> Any:
    @intrinsic
    def convert(typing: Any, context_pointer: Any) -> Any:
        def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
            return args[0]

        return kind(Pointer), lower

    return convert


xdp_context, tc_context = _kernel_context(XDP), _kernel_context(TC)
"""The kernel's own context pointer as a context."""
