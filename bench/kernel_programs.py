"""Kernel programs for measurements: the machine's limits, and the mux with its frame restored.

``BPF_PROG_TEST_RUN`` does not reset the frame between the runs of one test, so ``again`` removes the outer header.
``nothing`` does only that; its time is subtracted.
"""

from lbmux.datapath import mux
from lbmux.datapath.context import settings, xdp_context
from lbmux.datapath.encapsulate import write_ethernet
from lbmux.datapath.flow_lookup import bucket_at, first_way, flow_hash, state_of
from lbmux.datapath.frame import frame, frame_end, grow
from lbmux.datapath.headers import TYPE_IPV4, ethernet, ipv4
from lbmux.datapath.memory import advance, beyond, int64, step, u16, u64
from lbmux.datapath.parse import PARSED, parse
from lbmux.datapath.tables import CLOSING, entry_row, settings_row
from lbmux.targets.bpf.xdp_programs import XDP_DROP, XDP_PASS, XDP_TX, mux_action
from lbmux.wire.header_layouts import ETHERNET_BYTES, IPV4_BYTES


def drop(ctx):
    return XDP_DROP


def send_back(ctx):
    return XDP_TX


def pass_up(ctx):
    return XDP_PASS


def look_once(ctx):
    """Measure the minimum cost of a flow table: read one cache line of each frame's flow, and act on it."""
    context = xdp_context(ctx)
    packet = parse(context, frame(context), frame_end(context))
    if packet.verdict != PARSED:
        return XDP_DROP
    setting = settings_row(settings(context), 0)
    hashed = flow_hash(setting, packet.source_high, packet.source_low, packet.ports, packet.destination_low)
    entry = entry_row(bucket_at(context, hashed), first_way(hashed))
    return XDP_TX if state_of(entry.word) <= CLOSING else XDP_DROP


@step
def restore(context):
    """Remove 20 bytes from the front, write an Ethernet header, and restore the TTL."""
    if not grow(context, int64(-IPV4_BYTES)):
        return XDP_DROP
    start = frame(context)
    if beyond(advance(start, ETHERNET_BYTES + IPV4_BYTES), frame_end(context)):
        return XDP_DROP
    write_ethernet(start, u64(0), u64(0))
    ethernet(start, 0).type = u16(TYPE_IPV4)
    ipv4(start, ETHERNET_BYTES).ttl = 64
    return XDP_TX


def again(ctx):
    context = xdp_context(ctx)
    verdict, _, interface = mux.run(context)
    action = mux_action(context, verdict, interface)
    return restore(context) if action == XDP_TX else action


def nothing(ctx):
    context = xdp_context(ctx)
    if not grow(context, int64(IPV4_BYTES)):
        return XDP_DROP
    if beyond(advance(frame(context), ETHERNET_BYTES), frame_end(context)):
        return XDP_DROP
    return restore(context)
