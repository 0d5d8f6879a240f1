"""The way out of the host agent, which translates replies.

Reply -> match the DIP -> flow table: did it come by a mux? -> DIP to VIP -> out, past the mux.

A reply without an entry leaves unchanged only if it cannot belong to a VIP. A connection that a client opens directly
to a DIP is entered when its SYN-ACK leaves, with the endpoint ``setting.direct_endpoint``. Any other TCP reply without
an entry has lost it: user space checks the host's sockets (lbmux.daemons.agent_slow_path_io). A reset means nothing to
a client that does not know its source, and UDP has no connections to check, so both leave unchanged.
"""

from lbmux.datapath.agent_flows import dip_port_of, find_endpoint, outbound_key
from lbmux.datapath.context import barrier, endpoint_limit, endpoints, settings
from lbmux.datapath.counters import count_lookup
from lbmux.datapath.encapsulate import write_ethernet
from lbmux.datapath.flow_lookup import delete, flow_hash, lookup
from lbmux.datapath.flows import remember
from lbmux.datapath.frame import frame, frame_end, frame_length
from lbmux.datapath.headers import TYPE_IPV4, TYPE_IPV6, ethernet, icmp, ipv4, ipv6
from lbmux.datapath.match import match, match_service
from lbmux.datapath.memory import advance, beyond, int64, step, u16, u32, u64
from lbmux.datapath.parse import (
    FRAGMENT,
    ICMP,
    PARSED,
    destination_port,
    headers_at,
    mapped,
    network_offset,
    parse,
    source_port,
)
from lbmux.datapath.tables import DIP, GONE, HIT, LOST, NAT, SOURCE, VIP, WAYS, endpoint_row, settings_row
from lbmux.datapath.translate import clamp_mss, translate_both, translate_source
from lbmux.datapath.verdicts import Verdict
from lbmux.wire.header_layouts import IPV4_BYTES, IPV6_BYTES
from lbmux.wire.numbers import ACK, RST, SYN, TCP_PROTOCOL

HAIRPIN, NOT_TRANSLATED = int(Verdict.HAIRPIN), int(Verdict.NOT_TRANSLATED)
REPLIED, REPLY_FRAGMENT = int(Verdict.REPLIED), int(Verdict.REPLY_FRAGMENT)
REPLY_ICMP, RESET_SUPPRESSED = int(Verdict.REPLY_ICMP), int(Verdict.RESET_SUPPRESSED)
UNKNOWN_REPLY, UNTRACKED = int(Verdict.UNKNOWN_REPLY), int(Verdict.UNTRACKED)
V6_FIRST_QUERY, V4_UNREACHABLE, V4_REDIRECT, V4_EXCEEDED, V4_PARAMETER = 128, 3, 5, 11, 12
"""ICMP types (RFC 792; RFC 4443, section 2.1)."""


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
        if way >= 0:  # a stale entry
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
    parsed, offset, kind = network_offset(context, start, end)
    if parsed != PARSED:
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
    headers = headers_at(context, start, offset, end, frame_length(context) - offset, kind)
    if headers.verdict != PARSED or beyond(advance(start, headers.transport + 1), end):
        return False
    number = int64(icmp(start, headers.transport).type)
    if headers.family == 6:
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
