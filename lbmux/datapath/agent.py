"""The host agent: decapsulates and translates inbound packets, and translates replies back.

In:  frame -> tunnelled to us by a mux? -> match the VIP -> flow table: do we know the connection? -> decapsulate
     -> VIP to DIP -> local stack.
Out: lbmux.datapath.agent_replies.

Hairpin: a backend connects to its own VIP and is itself selected. Its server would receive a packet from its own
address, which no stack accepts from outside. The server therefore sees the VIP as its client, and the reply to the
VIP returns to the local stack, from the VIP to the DIP.
"""

from lbmux.datapath.agent_flows import as_delivered, dip_port_of, is_hairpin, learn_flow
from lbmux.datapath.agent_replies import outbound
from lbmux.datapath.context import barrier, clock, current_worker, endpoint_limit, endpoints, settings, worker_limit
from lbmux.datapath.counters import count_verdict
from lbmux.datapath.decapsulate import Tunnel, combine_ecn, decapsulate, open_tunnel
from lbmux.datapath.frame import frame, frame_end, frame_length
from lbmux.datapath.headers import ethernet
from lbmux.datapath.match import match_service
from lbmux.datapath.memory import advance, beyond, int64, step, u16, u32
from lbmux.datapath.mux import merge_verifier_paths
from lbmux.datapath.parse import (
    PARSED,
    destination_port,
    parse,
    parse_at,
    source_port,
)
from lbmux.datapath.tables import NAT, VIP, endpoint_row, settings_row
from lbmux.datapath.translate import translate_both, translate_destination
from lbmux.datapath.verdicts import Verdict
from lbmux.wire.header_layouts import ETHERNET_BYTES

CONGESTED, DELIVERED = int(Verdict.CONGESTED), int(Verdict.DELIVERED)
NO_HEADROOM, NO_LOCAL_BACKEND = int(Verdict.NO_HEADROOM), int(Verdict.NO_LOCAL_BACKEND)
OUT_OF_TABLE, UNKNOWN_CONNECTION = int(Verdict.OUT_OF_TABLE), int(Verdict.UNKNOWN_CONNECTION)


@step
def merge_tunnel_kinds(context, setting, tunnel):
    """Return the tunnel. From here on the verifier follows one path for all kinds, not one for each kind."""
    offset, kind = barrier(context, tunnel.offset, setting.key0), barrier(context, int64(tunnel.type), setting.key0)
    return Tunnel(tunnel.verdict, offset, u16(kind), tunnel.bytes_left, tunnel.ecn)


@step
def inbound(context, worker, now):
    """Process one frame from the wire. Return (verdict, endpoint or -1)."""
    setting = settings_row(settings(context), 0)
    start, end = frame(context), frame_end(context)  # read once: the verifier treats each read as a new value
    tunnel = open_tunnel(context, setting, start, end)
    if tunnel.verdict != PARSED:
        return tunnel.verdict, int64(-1)
    packet = parse_at(context, start, tunnel.offset, end, tunnel.bytes_left, tunnel.type)
    if packet.verdict != PARSED:
        return packet.verdict, int64(-1)
    port = destination_port(packet.ports)
    target = match_service(
        context, setting, VIP, packet.destination_high, packet.destination_low, port, packet.protocol
    )
    if target < 0:
        return NO_LOCAL_BACKEND, int64(-1)
    if target >= endpoint_limit(context):
        return OUT_OF_TABLE, int64(-1)
    if not combine_ecn(start, packet, tunnel.ecn):
        return CONGESTED, target
    endpoint = endpoint_row(endpoints(context), target)
    if endpoint.mode == NAT or endpoint.checks_sockets != 0:
        packet = merge_verifier_paths(context, setting, as_delivered(endpoint, packet))
        tunnel = merge_tunnel_kinds(context, setting, tunnel)
        if not learn_flow(context, setting, worker, endpoint, target, packet, now):
            return UNKNOWN_CONNECTION, target
    if not decapsulate(context, start, tunnel):
        return NO_HEADROOM, target
    if endpoint.mode == NAT:
        return translate_inbound(context, endpoint), target
    return DELIVERED, target


@step
def translate_inbound(context, endpoint):
    """Translate the VIP to the DIP. Return the verdict."""
    start, end = frame(context), frame_end(context)
    packet = parse(context, start, end)  # proves the bounds again, after the move
    if packet.verdict != PARSED:
        return NO_HEADROOM
    port = dip_port_of(endpoint, destination_port(packet.ports))
    if is_hairpin(endpoint, packet):
        translate_both(
            context, start, packet, endpoint.vip_high, endpoint.vip_low, source_port(packet.ports),
            endpoint.dip_high, endpoint.dip_low, port,
        )  # fmt: skip
    else:
        translate_destination(context, start, packet, endpoint.dip_high, endpoint.dip_low, port)
    return DELIVERED


@step
def run_counted(context, steps):
    """Run ``steps`` (``inbound`` or ``outbound``) on one frame and count the verdict."""
    worker, length = current_worker(context), frame_length(context)
    if worker >= worker_limit(context):
        return OUT_OF_TABLE, int64(-1)
    verdict, target = steps(context, worker, clock(context))
    count_verdict(context, worker, verdict, length)
    return verdict, target


@step
def run_inbound(context):
    """Process and count one frame from the wire. Return (verdict, endpoint or -1)."""
    return run_counted(context, inbound)


@step
def run_outbound(context):
    """Process and count one frame that leaves the host. Return (verdict, endpoint or -1)."""
    return run_counted(context, outbound)


@step
def mark_delivered(context):
    """Clear the Ethernet source, so that the edge's filter and packet ring do not take the frame for a client's."""
    start = frame(context)
    if not beyond(advance(start, int64(ETHERNET_BYTES)), frame_end(context)):
        eth = ethernet(start, 0)
        eth.source_high, eth.source_low = u16(0), u32(0)
