"""The agent's flows: the mux's flow table with other meanings.

The key is what the reply will show (client, ports, DIP), and the target is the endpoint (the VIP) through which the
connection came.

The agent knows a TCP connection from its SYN on. If a later packet's connection is unknown, the mux may have chosen
the wrong host, so user space checks the host's sockets (lbmux.slowpath.agent_slow_path). A stale entry for a reused
4-tuple is detected when the host sends a reset without an acknowledgment (RFC 9293, section 3.10.7.1). The agent
suppresses that reset and deletes the entry, and user space checks the sockets for the client's next packet.
"""

from lbmux.datapath.context import endpoint_limit, endpoints
from lbmux.datapath.counters import count_lookup
from lbmux.datapath.flow_lookup import delete, flow_hash, is_alive, lookup, target_of
from lbmux.datapath.flows import remember, still_good
from lbmux.datapath.frame import KNOWN_LOCAL, frame_flags
from lbmux.datapath.memory import int64, step, u32, u64
from lbmux.datapath.parse import (
    Packet,
    destination_port,
)
from lbmux.datapath.tables import LOST, NAT, endpoint_row, entry_row
from lbmux.wire.numbers import SYN

UNKNOWN, KNOWN, ANOTHERS = 0, 1, 2


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
def known_flow(context, setting, worker, hashed, high, low, ports, target, endpoint, flags, now):
    """Return whether the flow has an entry with this endpoint: KNOWN, UNKNOWN or ANOTHERS.

    If the entry has another endpoint, the client's address and port were used with another VIP of the same server. It
    may keep that endpoint (ANOTHERS). Otherwise it is deleted, so a flow has one entry.
    """
    bucket, way, word = lookup(context, hashed, high, low, ports, endpoint.owner)
    if way < 0:
        return UNKNOWN
    if target_of(word) != target:
        if keeps_endpoint(context, live_target(context, bucket, way, word, now)):
            return ANOTHERS
        delete(bucket, way, word)
        count_lookup(context, worker, LOST)
        return UNKNOWN
    is_usable = still_good(context, setting, worker, hashed, bucket, way, word, endpoint, endpoint, flags, now)
    return KNOWN if is_usable else UNKNOWN


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
    known = known_flow(context, setting, worker, hashed, high, low, ports, target, endpoint, packet.flags, now)
    if known == KNOWN:
        return True
    is_open = endpoint.checks_sockets != 0 and ((frame_flags(context) & KNOWN_LOCAL) | (packet.flags & SYN)) == 0
    if is_open or known == ANOTHERS:
        return False
    remember(
        context, setting, worker, hashed, high, low, ports, endpoint.owner, target, endpoint.generation, endpoint, now
    )
    return True


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
