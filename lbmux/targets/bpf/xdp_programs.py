"""The kernel programs: each takes the kernel's context and returns an action. lbmux.datapath makes all decisions."""

from lbmux.datapath import agent, gate, mux
from lbmux.datapath.context import (
    coarse_time,
    current_worker,
    jiffies,
    settings,
    tc_context,
    worker_limit,
    xdp_context,
)
from lbmux.datapath.counters import count_verdict
from lbmux.datapath.frame import RECEIVED, SENT, arrived, frame, frame_end, frame_length, packet_mark, redirect
from lbmux.datapath.memory import advance, beyond, int64, layout, rows, step
from lbmux.datapath.tables import AGENT_MARK, settings_row
from lbmux.datapath.verdicts import DROPS, PASSES, Verdict
from lbmux.targets.bpf.tail_call import to_agent, to_mux
from lbmux.wire.numbers import LOOPBACK

XDP_DROP, XDP_PASS, XDP_TX = 1, 2, 3
TCX_NEXT, TCX_DROP, TCX_REDIRECT = -1, 2, 7
HAIRPIN, UNKNOWN_REPLY = int(Verdict.HAIRPIN), int(Verdict.UNKNOWN_REPLY)
REPLY_FRAGMENT, REPLY_ICMP = int(Verdict.REPLY_FRAGMENT), int(Verdict.REPLY_ICMP)
BLACK_HOLED = int(Verdict.BLACK_HOLED)


@step
def unsent_action(verdict):
    return XDP_PASS if verdict < DROPS else XDP_DROP


@step
def mux_action(context, verdict, interface):
    """Return the mux's action. A forwarded frame leaves by ``interface``; others are passed or dropped.

    An edge passes what it forwards to its own host, where the agent takes it.
    """
    if verdict >= PASSES:
        return unsent_action(verdict)
    if interface == 0 or interface == arrived(context):
        return XDP_TX
    if interface == LOOPBACK:
        return XDP_PASS
    return redirect(context, int64(interface), int64(SENT))


@step
def agent_xdp_action(verdict):
    """Return the agent's action for an inbound frame: a decapsulated packet goes to the local stack."""
    return XDP_PASS if verdict < PASSES else unsent_action(verdict)


@step
def agent_tc_action(context, verdict):
    """Return the agent's action for an outbound frame: replies leave with the VIP as source, other frames unchanged.

    A hairpin reply is received again by this host. Frames that need user space go to its interface. If user space is
    not running, that interface is gone and the packet is dropped: it would leave with the DIP as its source.
    """
    if verdict == HAIRPIN:
        return redirect(context, arrived(context), int64(RECEIVED))
    if verdict == UNKNOWN_REPLY or verdict == REPLY_FRAGMENT or verdict == REPLY_ICMP:
        to = int64(settings_row(settings(context), 0).punt_interface)
        return TCX_DROP if to == 0 else redirect(context, to, int64(SENT))
    return TCX_NEXT if verdict < DROPS else TCX_DROP


def mux_xdp(ctx):
    context = xdp_context(ctx)
    verdict, _, interface = mux.run(context)
    return mux_action(context, verdict, interface)


def gate_xdp(ctx):
    context = xdp_context(ctx)
    worker = current_worker(context)
    if worker < worker_limit(context) and gate.is_black_holed(context, frame(context), frame_end(context)):
        count_verdict(context, worker, BLACK_HOLED, frame_length(context))
        return XDP_DROP
    to_mux(context)
    return XDP_PASS


@step
def is_for_agent(verdict, interface):
    """Return whether an edge's agent gets the frame: what the mux sends to its own host, or leaves to the stack."""
    return interface == LOOPBACK if verdict < PASSES else verdict < DROPS


def edge_mux_xdp(ctx):
    context = xdp_context(ctx)
    verdict, _, interface = mux.run(context)
    if is_for_agent(verdict, interface):
        to_agent(context)
    return mux_action(context, verdict, interface)


def edge_agent_xdp(ctx):
    context = xdp_context(ctx)
    verdict, _ = agent.run_inbound(context)
    if verdict < PASSES:
        agent.mark_delivered(context)
    return agent_xdp_action(verdict)


def agent_xdp(ctx):
    verdict, _ = agent.run_inbound(xdp_context(ctx))
    return agent_xdp_action(verdict)


def agent_tc(ctx):
    context = tc_context(ctx)
    if packet_mark(context) == AGENT_MARK:
        return TCX_NEXT
    verdict, _ = agent.run_outbound(context)
    return agent_tc_action(context, verdict)


CLOCKS = layout(("jiffies", "u8"), ("coarse_ns", "u8"))
CLOCKS_BYTES = CLOCKS.itemsize
clocks_row = rows(CLOCKS)


def clock_xdp(ctx):
    """Write the kernel's two clocks into the frame (see kernel_clock)."""
    context = xdp_context(ctx)
    start = frame(context)
    if beyond(advance(start, int64(CLOCKS_BYTES)), frame_end(context)):
        return XDP_DROP
    row = clocks_row(start, 0)
    row.jiffies, row.coarse_ns = jiffies(context), coarse_time(context)
    return XDP_PASS
