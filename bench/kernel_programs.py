"""Kernel programs for measuring: the limits of a machine, and the mux with its frame put back.

``BPF_PROG_TEST_RUN`` does not reset the frame between the runs of one test, so ``again`` takes the outer header off
again; ``nothing`` does only that, and is to be subtracted.
"""

from lbmux.datapath import mux
from lbmux.datapath.context import frame, frame_end, grow, settings, worker, worker_limit, xdp_world
from lbmux.datapath.encapsulate import write_ethernet
from lbmux.datapath.flows import bucket_at, first_way, flow_hash
from lbmux.datapath.headers import ETHERNET_BYTES, IPV4_BYTES, TYPE_IPV4, ethernet, ipv4
from lbmux.datapath.memory import advance, beyond, int64, step, u16, u64
from lbmux.datapath.parse import PARSED, parse
from lbmux.datapath.tables import CLOSING, flow_row, settings_row
from lbmux.targets.bpf.xdp_programs import XDP_DROP, XDP_PASS, XDP_TX, mux_action


def drop(context):
    return XDP_DROP


def send_back(context):
    return XDP_TX


def pass_up(context):
    return XDP_PASS


def look_once(context):
    """The least that a flow table costs: of each frame's flow one line is read, and what is done waits for it."""
    world = xdp_world(context)
    packet, who = parse(world, frame(world), frame_end(world)), worker(world)
    if packet.verdict != PARSED or who >= worker_limit(world):
        return XDP_DROP
    setting = settings_row(settings(world), 0)
    hashed = flow_hash(setting, packet.source_high, packet.source_low, packet.ports, packet.destination_low)
    flow = flow_row(bucket_at(world, who, hashed), first_way(hashed))
    return XDP_TX if flow.state <= CLOSING else XDP_DROP


@step
def restore(world):
    """Take 20 bytes off the front and write an Ethernet header; the hop that the mux has taken is given back."""
    if not grow(world, int64(-IPV4_BYTES)):
        return XDP_DROP
    start = frame(world)
    if beyond(advance(start, ETHERNET_BYTES + IPV4_BYTES), frame_end(world)):
        return XDP_DROP
    write_ethernet(start, u64(0), u64(0))
    ethernet(start, 0).type = u16(TYPE_IPV4)
    ipv4(start, ETHERNET_BYTES).ttl = 64
    return XDP_TX


def again(context):
    world = xdp_world(context)
    verdict, target = mux.run(world)
    action = mux_action(world, verdict, target)
    return restore(world) if action == XDP_TX else action


def nothing(context):
    world = xdp_world(context)
    if not grow(world, int64(IPV4_BYTES)):
        return XDP_DROP
    if beyond(advance(frame(world), ETHERNET_BYTES), frame_end(world)):
        return XDP_DROP
    return restore(world)
