"""Which mux has a datagram's fragments, where routers may send each fragment to another mux.

Routers hash five fields of a whole packet and three of a fragment, so the fragments of one datagram may arrive at
several muxes.  All of them then send them to one, named by a hash of what every fragment has (Maglev, section 4.1.2);
that one never sends them on to a third, whatever its own list of muxes says.
"""

from collections.abc import Collection, Sequence

import mmh3

from lbmux.addresses import Address
from lbmux.wire.packet import Packet, ip_packet

CARRIES = {4: 4, 6: 41}
"""IP in IP: the protocol number by the inner packet's family (RFC 2003, RFC 2473)."""
OUTER_BYTES = {4: 20, 6: 40}


def sharing(muxes: Collection[Address], own: Collection[Address]) -> list[Address]:
    """The muxes that share fragments among them, in the same order on each; none where we are not one of them.

    A mux may be there with an address of each family: it counts once, by that of the family that we are named in.
    """
    family = min((address.version for address in own if address in muxes), default=0)
    return sorted((mux for mux in muxes if mux.version == family), key=int)


def owner_of(fragment: Packet, muxes: Sequence[Address]) -> Address:
    """Of the muxes that share fragments, the one that is to have this one."""
    fields = fragment.source.packed + fragment.destination.packed + fragment.identification.to_bytes(4, "big")
    return muxes[mmh3.hash(fields, 0, signed=False) % len(muxes)]


def to_mux(fragment: Packet, source: Address, mux: Address) -> bytes:
    """The fragment in IP in IP, to the mux that is to have it."""
    return ip_packet(source, mux, CARRIES[fragment.version], fragment.data, traffic_class=fragment.traffic_class)


def is_from_mux(packet: Packet, muxes: Collection[Address]) -> bool:
    """Whether a packet to our own address is a fragment that another mux sent on."""
    return packet.protocol in CARRIES.values() and not packet.is_fragment and packet.source in muxes
