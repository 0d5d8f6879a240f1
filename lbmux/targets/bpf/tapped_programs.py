"""The kernel programs that also record frames: they replace the usual programs while a trace client is connected.

Tracing therefore costs nothing at other times (lbmux.frames.tap_reader). They write frames that match a prefilter
(lbmux.datapath.prefilter) into a ring. The prefilter is coarser than the client's filter, which user space applies.
User space also limits how many frames may be written, so a flood costs little.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lbmux.datapath import agent, mux
from lbmux.datapath.context import (
    barrier,
    current_worker,
    helper,
    settings,
    table,
    tc_context,
    worker_limit,
    xdp_context,
)
from lbmux.datapath.frame import arrived, frame_length, packet_mark
from lbmux.datapath.memory import advance, i8, i32, i64, int64, layout, offset_by, rows, step, u64
from lbmux.datapath.prefilter import PREFILTER, passes, prefilter_row
from lbmux.datapath.tables import AGENT_MARK, settings_row
from lbmux.datapath.verdicts import DROPS, PASSES
from lbmux.targets.bpf.tail_call import to_agent
from lbmux.targets.bpf.xdp_programs import (
    TCX_NEXT,
    agent_tc_action,
    agent_xdp_action,
    is_for_agent,
    mux_action,
)

RING_SYMBOL = "lbmux_ring_"
"""Prefix of a symbol that stands for a ring as helpers take it."""

BUDGET = layout(("left", "u8"), ("sequence", "u8"), ("skipped", "u8"), ("unused", "u8"))
"""One row per worker, after the prefilter: frames that may still be written, frames written, frames over the budget."""
RECORD = layout(
    ("time_ns", "u8"), ("sequence", "u8"), ("after", "u4"), ("length", "u4"), ("verdict", "i4"), ("target", "i4"),
    ("worker", "u4"), ("interface", "u4"), ("leaves_by", "u4"), ("unused", "u4"),
)  # fmt: skip
"""A frame's header in the ring: ``time_ns`` of CLOCK_MONOTONIC; ``after`` the data path, not before it; the
frame's ``length`` in bytes, of which the ring has at most MOST_BYTES; ``leaves_by`` is 0 if equal to ``interface``."""
MOST_BYTES = 2048
PREFILTER_BYTES, RECORD_BYTES = PREFILTER.itemsize, RECORD.itemsize
budget_row, trace = rows(BUDGET), table("trace")

HELPER_NOW, HELPER_LOAD_SKB, HELPER_RESERVE, HELPER_SUBMIT, HELPER_LOAD_XDP = 5, 26, 131, 132, 189


@intrinsic
def record(typing: Any, context: Any, sequence, after, length, verdict, target, worker, interface, leaves_by) -> Any:
    """Write the current frame into the ring, if that has space. ``length`` is at least 1."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        ring = builder.module.globals.get(RING_SYMBOL + "frames") or ir.GlobalVariable(
            builder.module, i8, RING_SYMBOL + "frames"
        )
        size, none = ir.Constant(i64, RECORD_BYTES + MOST_BYTES), ir.Constant(i64, 0)
        place = helper(builder, HELPER_RESERVE, i8.as_pointer(), ring, size, none)
        with builder.if_then(builder.icmp_unsigned("!=", builder.ptrtoint(place, i64), none)):
            now = helper(builder, HELPER_NOW, i64)
            names = ("sequence", "after", "length", "verdict", "target", "worker", "interface", "leaves_by")
            for name, value in (("time_ns", now), *zip(names, args[1:], strict=True)):
                kind, at = RECORD.fields[name][:2]  # type: ignore[index]
                value = value if kind.itemsize == 8 else builder.trunc(value, i32)
                to = builder.bitcast(offset_by(builder, place, ir.Constant(i64, at)), value.type.as_pointer())
                builder.store(value, to, align=kind.itemsize)
            # The verifier accepts a mask as a bound. LLVM would remove it as redundant, hence the empty asm.
            wanted = builder.sub(args[3], ir.Constant(i64, 1))
            most = ir.Constant(i64, MOST_BYTES - 1)
            wanted = builder.select(builder.icmp_unsigned(">", wanted, most), most, wanted)
            wanted = builder.asm(ir.FunctionType(i64, [i64]), "", "=r,0", [wanted], side_effect=False)
            wanted = builder.add(builder.and_(wanted, most), ir.Constant(i64, 1))
            data = offset_by(builder, place, ir.Constant(i64, RECORD_BYTES))
            load = HELPER_LOAD_XDP if context.target == "xdp" else HELPER_LOAD_SKB
            helper(builder, load, i64, args[0], ir.Constant(i64, 0), data, wanted)
            helper(builder, HELPER_SUBMIT, i64, place, none)
        return lowering.get_dummy_value()

    return types.void(context, *(types.int64,) * 8), lower


@step
def budget(context, worker):
    return budget_row(advance(trace(context), int64(PREFILTER_BYTES)), worker)


@step
def take_budget(context, worker):
    """Return whether one more frame may be written, and charge it to the budget."""
    row = budget(context, worker)
    if row.left == u64(0):
        row.skipped += u64(1)
        return False
    row.left -= u64(1)
    row.sequence += u64(1)
    return True


@step
def record_arrival(context, may_match):
    """Record an arriving frame if it is wanted. Return its sequence number, or 0.

    ``may_match``: apply the prefilter to the headers; without it they may be a tunnel's, so every frame is wanted. The
    caller keeps the number, since an agent's reply may be interrupted by the same worker's next frame.
    """
    worker, prefilter = current_worker(context), prefilter_row(trace(context), 0)
    if (
        worker >= worker_limit(context)
        or (may_match and not passes(context, prefilter))
        or not take_budget(context, worker)
    ):
        return int64(0)
    sequence = int64(budget(context, worker).sequence)
    if prefilter.sent != u64(0):
        record(
            context, sequence, int64(0), frame_length(context), int64(0), int64(-1), worker, arrived(context), int64(0)
        )
    return sequence


@step
def record_arrival_merged(context, may_match):
    """Like ``record_arrival``, but the verifier follows one path from here on, whatever the result."""
    return barrier(context, record_arrival(context, may_match), settings_row(settings(context), 0).key0)


@step
def record_result(context, sequence, verdict, target, leaves_by):
    """Record the frame's outcome. User space records the frames that are passed to it."""
    if sequence == 0:
        return
    prefilter = prefilter_row(trace(context), 0)
    if (verdict < PASSES and prefilter.sent != u64(0)) or (verdict >= DROPS and prefilter.dropped != u64(0)):
        record(
            context, sequence, int64(1), frame_length(context), int64(verdict), int64(target), current_worker(context),
            arrived(context), int64(leaves_by),
        )  # fmt: skip


def mux_xdp(ctx):
    context = xdp_context(ctx)
    sequence = record_arrival_merged(context, True)
    verdict, target, interface = mux.run(context)
    record_result(context, sequence, verdict, target, interface)
    return mux_action(context, verdict, interface)


def edge_mux_xdp(ctx):
    context = xdp_context(ctx)
    sequence = record_arrival_merged(context, True)
    verdict, target, interface = mux.run(context)
    record_result(context, sequence, verdict, target, interface)
    if is_for_agent(verdict, interface):
        to_agent(context)
    return mux_action(context, verdict, interface)


def edge_agent_xdp(ctx):
    context = xdp_context(ctx)
    sequence = record_arrival_merged(context, False)
    verdict, target = agent.run_inbound(context)
    record_result(context, sequence, verdict, target, int64(0))
    if verdict < PASSES:
        agent.mark_delivered(context)
    return agent_xdp_action(verdict)


def agent_xdp(ctx):
    context = xdp_context(ctx)
    sequence = record_arrival_merged(context, False)
    verdict, target = agent.run_inbound(context)
    record_result(context, sequence, verdict, target, int64(0))
    return agent_xdp_action(verdict)


def agent_tc(ctx):
    context = tc_context(ctx)
    if packet_mark(context) == AGENT_MARK:
        return TCX_NEXT
    sequence = record_arrival_merged(context, True)
    verdict, target = agent.run_outbound(context)
    record_result(context, sequence, verdict, target, int64(0))
    return agent_tc_action(context, verdict)
