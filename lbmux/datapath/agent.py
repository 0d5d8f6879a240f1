"""The host agent: decapsulates and translates inbound packets, and translates replies back.

In:  frame -> tunnelled to us by a mux? -> match the VIP -> flow table: do we know the connection? -> decapsulate
     -> VIP to DIP -> local stack.
Out: reply -> match the DIP -> flow table: did it come by a mux? -> DIP to VIP -> out, past the mux.

The flow table has the mux's layout with other meanings: the key is what the reply will show (client, ports, DIP), and
the target is the endpoint (the VIP) through which the connection came.

The agent knows a TCP connection from its SYN on. If a later packet's connection is unknown, the mux may have chosen
the wrong host, so user space checks the host's sockets (lbmux.slowpath.agent_slow_path). A stale entry for a reused
4-tuple is detected when the host sends a reset without an acknowledgment (RFC 9293, section 3.10.7.1). The agent
suppresses that reset and deletes the entry, and user space checks the sockets for the client's next packet.

Hairpin: a backend connects to its own VIP and is itself selected. Its server would receive a packet from its own
address, which no stack accepts from outside. The server therefore sees the VIP as its client, and the reply to the
VIP returns to the local stack, from the VIP to the DIP.

A reply without an entry leaves unchanged only if it cannot belong to a VIP. A connection that a client opens directly
to a DIP is entered when its SYN-ACK leaves, with the endpoint ``setting.direct_endpoint``. Any other TCP reply without
an entry has lost it: user space checks the host's sockets (lbmux.daemons.agent_slow_path_io). A reset means nothing to
a client that does not know its source, and UDP has no connections to check, so both leave unchanged.
"""

from lbmux.datapath.context import barrier, endpoint_limit, endpoints, settings
from lbmux.datapath.decapsulate import Tunnel, combine_ecn, decapsulate, open_tunnel
from lbmux.datapath.encapsulate import write_ethernet
from lbmux.datapath.flow_lookup import delete, flow_hash, is_alive, lookup, target_of
from lbmux.datapath.flows import count_lookup, remember, still_good
from lbmux.datapath.frame import KNOWN_LOCAL, frame, frame_end, frame_flags, frame_length
from lbmux.datapath.headers import TYPE_IPV4, TYPE_IPV6, ethernet, icmp, ipv4, ipv6
from lbmux.datapath.match import match, match_service
from lbmux.datapath.memory import advance, beyond, int64, step, u16, u32, u64
from lbmux.datapath.mux import merge_verifier_paths, run_counted
from lbmux.datapath.parse import (
    FRAGMENT,
    ICMP,
    PARSED,
    Packet,
    destination_port,
    headers_at,
    mapped,
    network_offset,
    parse,
    parse_at,
    source_port,
)
from lbmux.datapath.tables import DIP, GONE, HIT, LOST, NAT, SOURCE, VIP, WAYS, endpoint_row, entry_row, settings_row
from lbmux.datapath.translate import clamp_mss, translate_both, translate_destination, translate_source
from lbmux.datapath.verdicts import Verdict
from lbmux.wire.header_layouts import ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES
from lbmux.wire.numbers import ACK, RST, SYN, TCP_PROTOCOL

DELIVERED, REPLIED, NO_HEADROOM = int(Verdict.DELIVERED), int(Verdict.REPLIED), int(Verdict.NO_HEADROOM)
HAIRPIN = int(Verdict.HAIRPIN)
NO_LOCAL_BACKEND, CONGESTED = int(Verdict.NO_LOCAL_BACKEND), int(Verdict.CONGESTED)
NOT_TRANSLATED, OUT_OF_TABLE = int(Verdict.NOT_TRANSLATED), int(Verdict.OUT_OF_TABLE)
UNKNOWN_CONNECTION, RESET_SUPPRESSED = int(Verdict.UNKNOWN_CONNECTION), int(Verdict.RESET_SUPPRESSED)
UNKNOWN_REPLY, UNTRACKED = int(Verdict.UNKNOWN_REPLY), int(Verdict.UNTRACKED)
REPLY_FRAGMENT, REPLY_ICMP = int(Verdict.REPLY_FRAGMENT), int(Verdict.REPLY_ICMP)
V6_FIRST_QUERY, V4_UNREACHABLE, V4_REDIRECT, V4_EXCEEDED, V4_PARAMETER = 128, 3, 5, 11, 12
"""ICMP types (RFC 792; RFC 4443, section 2.1)."""


@step
def live_target(context, bucket, way, word, now):
    """Return the endpoint of an entry, or -1 if the entry is not usable."""
    target = target_of(word)
    if target >= endpoint_limit(context):
        return int64(-1)
    row = endpoint_row(endpoints(context), target)
    return target if is_alive(word, entry_row(bucket, way), row, row, now) else int64(-1)


@step
def keeps_endpoint(context, target):
    """Return whether packets to another VIP leave a live entry of this endpoint (-1: none) as it is.

    They may be forged, and user space can look up whether the entry's connection exists.
    """
    return target >= 0 and endpoint_row(endpoints(context), target).checks_sockets != 0


@step
def is_known_flow(context, setting, worker, hashed, high, low, ports, target, endpoint, flags, now):
    """Return whether the flow has an entry with this endpoint.

    If the entry has another endpoint, the client's address and port were used with another VIP of the same server. The
    entry is deleted, so a flow has one entry, unless it keeps its endpoint.
    """
    bucket, way, word = lookup(context, hashed, high, low, ports, endpoint.owner)
    if way < 0:
        return False
    if target_of(word) != target:
        if not keeps_endpoint(context, live_target(context, bucket, way, word, now)):
            delete(bucket, way, word)
            count_lookup(context, worker, LOST)
        return False
    return still_good(context, setting, worker, hashed, bucket, way, word, endpoint, endpoint, flags, now)


@step
def merge_tunnel_kinds(context, setting, tunnel):
    """Return the tunnel. From here on the verifier follows one path for all kinds, not one for each kind."""
    offset, kind = barrier(context, tunnel.offset, setting.key0), barrier(context, int64(tunnel.type), setting.key0)
    return Tunnel(tunnel.verdict, offset, u16(kind), tunnel.left, tunnel.ecn)


@step
def inbound(context, worker, now):
    """Process one frame from the wire. Return (verdict, endpoint or -1)."""
    setting = settings_row(settings(context), 0)
    start, end = frame(context), frame_end(context)  # read once: the verifier treats each read as a new value
    tunnel = open_tunnel(context, setting, start, end)
    if tunnel.verdict != PARSED:
        return tunnel.verdict, int64(-1)
    packet = parse_at(context, start, tunnel.offset, end, tunnel.left, tunnel.type)
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
def is_hairpin(endpoint, packet):
    """Return whether the backend itself is the client."""
    same = (packet.source_high ^ endpoint.dip_high) | (packet.source_low ^ endpoint.dip_low)
    return endpoint.mode == NAT and same == u64(0)


@step
def as_delivered(endpoint, packet):
    """Return the packet with the source address that the server will see."""
    high, low = packet.source_high, packet.source_low
    if is_hairpin(endpoint, packet):
        high, low = endpoint.vip_high, endpoint.vip_low
    return Packet(
        packet.verdict, packet.family, high, low, packet.destination_high, packet.destination_low, packet.ports,
        packet.protocol, packet.flags, packet.network, packet.transport,
    )  # fmt: skip


@step
def dip_port_of(endpoint, vip_port):
    return endpoint.dip_port if endpoint.dip_port != 0 else vip_port


@step
def inbound_key(setting, endpoint, packet):
    """Return (hash, ports) of the packet's flow, as its reply will show it."""
    port = dip_port_of(endpoint, destination_port(packet.ports))
    ports = u32((packet.ports & u32(0x0000FFFF)) | u32(u32(port) << u32(16)))
    return flow_hash(setting, packet.source_high, packet.source_low, ports, endpoint.dip_low), ports


@step
def outbound_key(setting, packet):
    """Return (hash, ports) of a reply's flow."""
    ports = u32(u32(packet.ports >> u32(16)) | u32(packet.ports << u32(16)))
    return flow_hash(setting, packet.destination_high, packet.destination_low, ports, packet.source_low), ports


@step
def learn_flow(context, setting, worker, endpoint, target, packet, now):
    """Enter the flow with the VIP that it uses. Return False for a connection that this host may not have.

    A server has one connection of a client's address and port. If that is another VIP's, user space checks whether it
    still exists.
    """
    high, low = packet.source_high, packet.source_low
    hashed, ports = inbound_key(setting, endpoint, packet)
    if is_known_flow(context, setting, worker, hashed, high, low, ports, target, endpoint, packet.flags, now):
        return True
    if endpoint.protocol == TCP_PROTOCOL:
        is_open = endpoint.checks_sockets != 0 and ((frame_flags(context) & KNOWN_LOCAL) | (packet.flags & SYN)) == 0
        found = find_endpoint(context, hashed, high, low, ports, endpoint.owner, False, now)
        if found != target and (is_open or keeps_endpoint(context, found)):
            return False
    remember(
        context, setting, worker, hashed, high, low, ports, endpoint.owner, target, endpoint.generation, endpoint, now
    )
    return True


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
def find_endpoint(context, hashed, high, low, ports, owner, is_refused, now):
    """Return the endpoint of the flow's entry, or -1.

    ``is_refused``: the host's stack refused the flow. Its entry is deleted, if the endpoint checks sockets.
    """
    bucket, way, word = lookup(context, hashed, high, low, ports, owner)
    target = live_target(context, bucket, way, word, now) if way >= 0 else int64(-1)
    if target >= 0:
        if is_refused and endpoint_row(endpoints(context), target).checks_sockets != 0:
            delete(bucket, way, word)
        else:
            entry_row(bucket, way).seen = now
    return target


@step
def outbound(context, worker, now):
    """Process one frame that leaves the host. Return (verdict, endpoint or -1)."""
    start, end = frame(context), frame_end(context)
    packet = parse(context, start, end)
    setting = settings_row(settings(context), 0)
    if packet.verdict != PARSED:
        return reply_without_ports(context, setting, start, end, packet.verdict), int64(-1)
    port = source_port(packet.ports)
    owner = match_service(context, setting, DIP, packet.source_high, packet.source_low, port, packet.protocol)
    is_refused = (packet.flags & (RST | ACK)) == RST
    if owner < 0:
        if is_refused:
            return reset_from_vip(context, setting, worker, packet, port, now)
        return NOT_TRANSLATED, int64(-1)
    owner = barrier(context, owner, setting.key0)  # the verifier continues once, not once per hash probe
    hashed, ports = outbound_key(setting, packet)
    high, low = packet.destination_high, packet.destination_low
    target = find_endpoint(context, hashed, high, low, ports, owner, is_refused, now)
    if target < 0:
        return reply_without_entry(context, setting, worker, hashed, packet, ports, owner, now), int64(-1)
    endpoint = endpoint_row(endpoints(context), target)
    if endpoint.mode != NAT:
        return NOT_TRANSLATED, int64(-1)
    if is_refused and endpoint.checks_sockets != 0:
        count_lookup(context, worker, LOST)
        return RESET_SUPPRESSED, target
    count_lookup(context, worker, HIT)
    vip_port = endpoint.vip_port if endpoint.vip_port != 0 else port
    verdict = translate_reply(context, start, packet, endpoint, vip_port)
    if endpoint.mss != 0 and (packet.flags & SYN) != 0:
        clamp_mss(context, packet, endpoint.mss)
    return verdict, target


@step
def translate_reply(context, start, packet, endpoint, vip_port):
    """Translate the DIP to the VIP, in a hairpin both addresses. Return the verdict."""
    different = (packet.destination_high ^ endpoint.vip_high) | (packet.destination_low ^ endpoint.vip_low)
    if different != u64(0):
        translate_source(context, start, packet, endpoint.vip_high, endpoint.vip_low, vip_port)
        return REPLIED
    eth = ethernet(start, 0)
    own = u64(eth.source_high) | (u64(eth.source_low) << u64(16))
    write_ethernet(start, own, own)
    translate_both(
        context, start, packet, endpoint.vip_high, endpoint.vip_low, vip_port,
        endpoint.dip_high, endpoint.dip_low, destination_port(packet.ports),
    )  # fmt: skip
    return HAIRPIN


@step
def reply_without_entry(context, setting, worker, hashed, packet, ports, owner, now):
    """Return the verdict of a reply without a flow entry."""
    if packet.protocol != TCP_PROTOCOL:
        return UNTRACKED
    if (packet.flags & RST) != 0:
        return NOT_TRANSLATED
    if (packet.flags & SYN) == 0:
        return UNKNOWN_REPLY
    target = int64(setting.direct_endpoint)
    if target >= endpoint_limit(context):
        return NOT_TRANSLATED
    row = endpoint_row(endpoints(context), target)
    if row.state != GONE:  # the client's SYN did not come from a mux, or the flow would have an entry
        high, low = packet.destination_high, packet.destination_low
        bucket, way, word = lookup(context, hashed, high, low, ports, owner)
        if way >= 0:  # an entry that is over
            delete(bucket, way & (WAYS - 1), word)
        remember(context, setting, worker, hashed, high, low, ports, owner, target, row.generation, row, now)
    return NOT_TRANSLATED


@step
def reply_without_ports(context, setting, start, end, verdict):
    """Return the verdict of a reply that ``parse`` rejected with ``verdict``.

    A backend's fragments and ICMP errors must not leave untranslated.
    """
    if verdict != FRAGMENT and verdict != ICMP:
        return verdict
    found, offset, kind = network_offset(context, start, end)
    if found != PARSED:
        return verdict
    high, low = u64(0), u64(0)
    if kind == TYPE_IPV4:
        if beyond(advance(start, offset + IPV4_BYTES), end):
            return verdict
        low = mapped(ipv4(start, offset).source)
    elif kind == TYPE_IPV6:
        if beyond(advance(start, offset + IPV6_BYTES), end):
            return verdict
        high, low = ipv6(start, offset).source_high, ipv6(start, offset).source_low
    if match(context, setting, SOURCE, high, low, u16(0), 0) < 0:
        return verdict
    if verdict == FRAGMENT:
        return REPLY_FRAGMENT
    return REPLY_ICMP if is_icmp_error(context, start, offset, end, kind) else verdict


@step
def is_icmp_error(context, start, offset, end, kind):
    """Return whether the ICMP message after the IP header at ``offset`` is an error."""
    found = headers_at(context, start, offset, end, frame_length(context) - offset, kind)
    if found.verdict != PARSED or beyond(advance(start, found.transport + 1), end):
        return False
    number = int64(icmp(start, found.transport).type)
    if found.family == 6:
        return number < V6_FIRST_QUERY
    is_old = number >= V4_UNREACHABLE and number <= V4_REDIRECT
    return is_old or number == V4_EXCEEDED or number == V4_PARAMETER


@step
def reset_from_vip(context, setting, worker, packet, port, now):
    """Process a reset without an acknowledgment from a VIP on a local interface. Return (verdict, endpoint or -1).

    Other replies of such a host need no processing, since it has the VIP itself.
    """
    target = match_service(context, setting, VIP, packet.source_high, packet.source_low, port, packet.protocol)
    if target < 0 or target >= endpoint_limit(context):
        return NOT_TRANSLATED, int64(-1)
    endpoint = endpoint_row(endpoints(context), target)
    if endpoint.mode == NAT or endpoint.checks_sockets == 0:
        return NOT_TRANSLATED, int64(-1)
    high, low = packet.destination_high, packet.destination_low
    ports = u32(u32(packet.ports >> u32(16)) | u32(u32(dip_port_of(endpoint, port)) << u32(16)))
    hashed = flow_hash(setting, high, low, ports, endpoint.dip_low)
    if find_endpoint(context, hashed, high, low, ports, endpoint.owner, True, now) < 0:
        return NOT_TRANSLATED, int64(-1)
    count_lookup(context, worker, LOST)
    return RESET_SUPPRESSED, target


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
