"""The primitives of a frame: where it begins and ends, grow, replace a checksum, redirect.

Each takes a context (context.py) and lowers to the code of the context's target.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lbmux.datapath.context import helper, hide_from_optimiser, load_kernel, load_native, native_field
from lbmux.datapath.memory import Pointer, i8, i32, i64

UNFINISHED_CHECKSUM, CUT, KNOWN_LOCAL = 1, 2, 4
"""Bits of a frame's flags: the transport checksum is left to a device; the frame's end is missing; see frame_flags."""

XDP_DATA, XDP_DATA_END, XDP_INGRESS = 0, 4, 12  # struct xdp_md
SKB_LENGTH, SKB_MARK, SKB_INTERFACE, SKB_DATA, SKB_DATA_END = 0, 8, 40, 76, 80  # struct __sk_buff
HELPER_CHECKSUM, HELPER_REDIRECT, HELPER_ADJUST_HEAD, HELPER_BUFFER_LENGTH = 11, 23, 44, 188
USUAL_BYTES = 1518
"""The longest frame at an MTU of 1500, with a VLAN tag."""
SENT, RECEIVED = 0, 1
"""Flags of ``redirect`` (BPF_F_INGRESS)."""


@intrinsic
def frame(typing: Any, context: Any) -> Any:
    """Return a pointer to the frame's first byte. ``grow`` makes it stale."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        offset = {"xdp": XDP_DATA, "tc": SKB_DATA}.get(context.target)
        value = load_native(builder, args[0], "frame") if offset is None else load_kernel(builder, args[0], offset)
        return builder.inttoptr(value, i8.as_pointer())

    return Pointer(context), lower


@intrinsic
def frame_end(typing: Any, context: Any) -> Any:
    """Return a pointer to the byte after the frame's last one."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        offset = {"xdp": XDP_DATA_END, "tc": SKB_DATA_END}.get(context.target)
        value = load_native(builder, args[0], "end") if offset is None else load_kernel(builder, args[0], offset)
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
            return load_kernel(builder, args[0], SKB_LENGTH)
        if context.target == "native":
            return builder.sub(load_native(builder, args[0], "end"), load_native(builder, args[0], "frame"))
        length = builder.sub(load_kernel(builder, args[0], XDP_DATA_END), load_kernel(builder, args[0], XDP_DATA))
        first = hide_from_optimiser(builder, length)
        short = builder.block
        with builder.if_then(builder.icmp_signed(">", first, ir.Constant(i64, USUAL_BYTES)), likely=False):
            whole = helper(builder, HELPER_BUFFER_LENGTH, i64, args[0])
            jumbo = builder.block
        result = builder.phi(i64)
        result.add_incoming(first, short)
        result.add_incoming(whole, jumbo)
        return result

    return types.int64(context), lower


@intrinsic
def grow(typing: Any, context: Any, length: Any) -> Any:
    """Grow the frame by ``length`` bytes at its front (negative: shrink it). Return False if that is not possible."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        if context.target == "native":
            moved = builder.sub(load_native(builder, args[0], "frame"), args[1])
            fits = builder.and_(
                builder.icmp_unsigned(">=", moved, load_native(builder, args[0], "floor")),
                builder.icmp_unsigned("<=", moved, load_native(builder, args[0], "end")),
            )
            with builder.if_then(fits):
                builder.store(moved, native_field(builder, args[0], "frame"), align=8)
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
def frame_flags(typing: Any, context: Any) -> Any:
    """Return the frame's flags: UNFINISHED_CHECKSUM and CUT, if the driver knows them, and KNOWN_LOCAL: the agent
    delivers the packet without checking the host's sockets. Always 0 in the kernel."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        return load_native(builder, args[0], "flags") if context.target == "native" else ir.Constant(i64, 0)

    return types.int64(context), lower


@intrinsic
def arrived(typing: Any, context: Any) -> Any:
    """Return the index of the interface that received the frame (tc: that sends it)."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        offset = {"xdp": XDP_INGRESS, "tc": SKB_INTERFACE}.get(context.target)
        return load_native(builder, args[0], "arrived") if offset is None else load_kernel(builder, args[0], offset)

    return types.int64(context), lower


@intrinsic
def packet_mark(typing: Any, context: Any) -> Any:
    """Return the mark of the packet's socket (SO_MARK): tc only."""
    if context.target != "tc":
        return None

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        return load_kernel(builder, args[0], SKB_MARK)

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
