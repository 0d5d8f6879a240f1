"""The context of a step: what differs between the native and the kernel targets. Only this file differs by target.

Every step that accesses more than its arguments takes a ``context`` first. Its Numba type names the target that is
being compiled, so each primitive below lowers to that target's code and every step is written once:

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
    "lookups", "traffic", "sources",
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

UNFINISHED_CHECKSUM, CUT, KNOWN_LOCAL = 1, 2, 4
"""Bits of a frame's flags: the transport checksum is left to a device; the frame's end is missing; see frame_flags."""

XDP_DATA, XDP_DATA_END, XDP_INGRESS = 0, 4, 12  # struct xdp_md
SKB_LENGTH, SKB_MARK, SKB_INTERFACE, SKB_DATA, SKB_DATA_END = 0, 8, 40, 76, 80  # struct __sk_buff
HELPER_BUFFER_LENGTH, USUAL_BYTES = 188, 1518
"""The helper bpf_xdp_get_buff_len; the longest frame at an MTU of 1500, with a VLAN tag."""
SENT, RECEIVED = 0, 1
"""Flags of ``redirect`` (BPF_F_INGRESS)."""
HELPER_CPU, HELPER_CHECKSUM, HELPER_REDIRECT, HELPER_ADJUST_HEAD, HELPER_JIFFIES, HELPER_TIME = 8, 11, 23, 44, 118, 160


class Context(types.Type):  # type: ignore[misc]
    """The Numba type of a context; ``target`` is ``native``, ``xdp`` or ``tc``."""

    def __init__(self, target: str) -> None:
        super().__init__(name=f"World({target})")
        self.target = target


register_model(Context)(models.OpaqueModel)
NATIVE, XDP, TC = Context("native"), Context("xdp"), Context("tc")


def _field(builder: Any, context: Any, name: str) -> Any:
    """Return a pointer to a field of the native CONTEXT record."""
    place = offset_by(builder, context, ir.Constant(i64, CONTEXT.fields[name][1]))  # type: ignore[index]
    return builder.bitcast(place, i64.as_pointer())


def _load(builder: Any, context: Any, name: str) -> Any:
    return builder.load(_field(builder, context, name), typ=i64, align=8)


def _context(builder: Any, context: Any, offset: int) -> Any:
    """Load a 32-bit field of the kernel's context."""
    place = builder.bitcast(offset_by(builder, context, ir.Constant(i64, offset)), i32.as_pointer())
    return builder.zext(builder.load(place, typ=i32, align=4), i64)


def _symbol(builder: Any, name: str) -> Any:
    symbol = builder.module.globals.get(name) or ir.GlobalVariable(builder.module, i8, name)
    symbol.linkage = "external"
    return builder.bitcast(symbol, i8.as_pointer())


def _kept_together(builder: Any, value: Any) -> Any:
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
    def place(typing: Any, context: Any) -> Any:
        def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
            if context.target == "native":
                return builder.inttoptr(_load(builder, args[0], f"{name}_table"), i8.as_pointer())
            return _symbol(builder, TABLE_SYMBOL + name)

        return Pointer(context), lower

    return place


def _limit(name: str) -> Any:
    @intrinsic
    def limit(typing: Any, context: Any) -> Any:
        def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
            if context.target == "native":
                return _load(builder, args[0], f"{name}_limit")
            return builder.ptrtoint(_symbol(builder, LIMIT_SYMBOL + name), i64)

        return types.int64(context), lower

    return limit


(
    settings, addresses, services, slots, rules, rates, backends, flows, endpoints, verdicts, lookups, traffic, sources,
) = map(table, TABLES)  # fmt: skip
"""Pointers to the start of each table (tables.py)."""

(
    address_limit, service_limit, slot_limit, rule_limit, backend_limit, bucket_limit, endpoint_limit, worker_limit,
    source_limit,
) = map(_limit, LIMITS)  # fmt: skip
"""The number of rows of each table; ``bucket_limit`` counts one worker's buckets."""


@intrinsic
def frame(typing: Any, context: Any) -> Any:
    """Return a pointer to the frame's first byte. ``grow`` makes it stale."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        offset = {"xdp": XDP_DATA, "tc": SKB_DATA}.get(context.target)
        value = _load(builder, args[0], "frame") if offset is None else _context(builder, args[0], offset)
        return builder.inttoptr(value, i8.as_pointer())

    return Pointer(context), lower


@intrinsic
def frame_end(typing: Any, context: Any) -> Any:
    """Return a pointer to the byte after the frame's last one."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        offset = {"xdp": XDP_DATA_END, "tc": SKB_DATA_END}.get(context.target)
        value = _load(builder, args[0], "end") if offset is None else _context(builder, args[0], offset)
        return builder.inttoptr(value, i8.as_pointer())

    return Pointer(context), lower


@intrinsic
def frame_length(typing: Any, context: Any) -> Any:
    """Return the frame's length in bytes, including the bytes that the kernel keeps in other buffers.

    In XDP only jumbo frames have several buffers, so the helper is called only if the first buffer is longer than
    USUAL_BYTES.
    """

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        if context.target == "tc":
            return _context(builder, args[0], SKB_LENGTH)
        if context.target == "native":
            return builder.sub(_load(builder, args[0], "end"), _load(builder, args[0], "frame"))
        length = builder.sub(_context(builder, args[0], XDP_DATA_END), _context(builder, args[0], XDP_DATA))
        first = _kept_together(builder, length)
        before = builder.block
        with builder.if_then(builder.icmp_signed(">", first, ir.Constant(i64, USUAL_BYTES)), likely=False):
            whole = helper(builder, HELPER_BUFFER_LENGTH, i64, args[0])
            behind = builder.block
        found = builder.phi(i64)
        found.add_incoming(first, before)
        found.add_incoming(whole, behind)
        return found

    return types.int64(context), lower


@intrinsic
def grow(typing: Any, context: Any, length: Any) -> Any:
    """Grow the frame by ``length`` bytes at its front (negative: shrink it). Return False if that is not possible."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        if context.target == "native":
            moved = builder.sub(_load(builder, args[0], "frame"), args[1])
            fits = builder.and_(
                builder.icmp_unsigned(">=", moved, _load(builder, args[0], "floor")),
                builder.icmp_unsigned("<=", moved, _load(builder, args[0], "end")),
            )
            with builder.if_then(fits):
                builder.store(moved, _field(builder, args[0], "frame"), align=8)
            return fits
        delta = builder.neg(builder.trunc(args[1], i32))
        result = helper(builder, HELPER_ADJUST_HEAD, i64, args[0], delta)
        return builder.icmp_signed("==", result, ir.Constant(i64, 0))

    return types.boolean(context, types.int64), lower


@intrinsic
def replace_transport_checksum(typing: Any, context: Any, offset: Any, before: Any, after: Any, flags: Any) -> Any:
    """Call bpf_l4_csum_replace, which handles unfinished checksums: tc only. Pointers into the frame become stale."""
    if context.target != "tc":
        return None

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        context, offset, before, after, flags = args
        before, after = builder.zext(before, i64), builder.zext(after, i64)
        helper(builder, HELPER_CHECKSUM, i64, context, builder.trunc(offset, i32), before, after, flags)
        return lowering.get_dummy_value()

    return types.void(context, types.int64, types.uint32, types.uint32, types.uint64), lower


@intrinsic
def clock(typing: Any, context: Any) -> Any:
    """Return the time in ticks (tables.TICK_SHIFT), modulo 2**32.

    The kernel target computes it from jiffies, which are one load. bpf_ktime_get_coarse_ns returns the same time and
    costs 13 ns.
    """

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        if context.target == "native":
            return builder.trunc(_load(builder, args[0], "now"), i32)
        jiffy_ns, offset_ns = (builder.ptrtoint(_symbol(builder, LIMIT_SYMBOL + name), i64) for name in CLOCK)
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
    """Return the worker whose tables are used: in the kernel the number of the CPU. It may exceed the limit."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        if context.target == "native":
            return _load(builder, args[0], "worker")
        return builder.zext(helper(builder, HELPER_CPU, i32), i64)

    return types.int64(context), lower


@intrinsic
def frame_flags(typing: Any, context: Any) -> Any:
    """Return the frame's flags: UNFINISHED_CHECKSUM and CUT, if the driver knows them, and KNOWN_LOCAL: the agent
    delivers the packet without checking the host's sockets. Always 0 in the kernel."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _load(builder, args[0], "flags") if context.target == "native" else ir.Constant(i64, 0)

    return types.int64(context), lower


@intrinsic
def is_plain(typing: Any, context: Any) -> Any:
    """Return whether only headers at their usual offsets are parsed: always in the kernel, which punts the rest."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        if context.target != "native":
            return ir.Constant(ir.IntType(1), 1)
        return builder.icmp_unsigned("!=", _load(builder, args[0], "plain"), ir.Constant(i64, 0))

    return types.boolean(context), lower


@intrinsic
def barrier(typing: Any, context: Any, value: Any, anything: Any) -> Any:
    """Return the value, but make the verifier forget what it knows about it. It then merges the paths that differ
    only in this value. ``anything`` is any number from memory."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        if context.target == "native":
            return args[1]
        return builder.add(args[1], builder.xor(args[2], _kept_together(builder, args[2])))

    return types.int64(context, types.int64, types.uint64), lower


@intrinsic
def arrived(typing: Any, context: Any) -> Any:
    """Return the index of the interface that received the frame (tc: that sends it)."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        offset = {"xdp": XDP_INGRESS, "tc": SKB_INTERFACE}.get(context.target)
        return _load(builder, args[0], "arrived") if offset is None else _context(builder, args[0], offset)

    return types.int64(context), lower


@intrinsic
def packet_mark(typing: Any, context: Any) -> Any:
    """Return the mark of the packet's socket (SO_MARK): tc only."""
    if context.target != "tc":
        return None

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _context(builder, args[0], SKB_MARK)

    return types.int64(context), lower


@intrinsic
def redirect(typing: Any, context: Any, interface: Any, flags: Any) -> Any:
    """Send the frame through another interface, or receive it there (``flags``: RECEIVED, tc only).

    Return the action for the kernel. Kernel only.
    """
    if context.target == "native":
        return None

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        return helper(builder, HELPER_REDIRECT, i64, builder.trunc(args[1], i32), args[2])

    return types.int64(context, types.int64, types.int64), lower


@intrinsic
def context_at(typing: Any, address: Any) -> Any:
    """Return the native context whose CONTEXT record is at an address."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], i8.as_pointer())

    return NATIVE(types.uint64), lower


def _kernel_context(kind: Context) -> Any:
    @intrinsic
    def of(typing: Any, context_pointer: Any) -> Any:
        def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
            return args[0]

        return kind(Pointer), lower

    return of


xdp_context, tc_context = _kernel_context(XDP), _kernel_context(TC)
"""The kernel's own context pointer as a context."""
