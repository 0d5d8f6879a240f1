"""The mux that owns a datagram's fragments, which routers may send to different muxes.

Routers hash five fields of a whole packet but three of a fragment, so the fragments of one datagram may arrive at
several muxes. Each mux sends them to the owner, which is selected by a hash of fields that every fragment has (Maglev,
section 4.1.2). The owner never sends them to a third mux, whatever its own list of muxes says.
"""

from collections.abc import Collection, Sequence

import mmh3

from lbmux.addresses import Address
from lbmux.wire.numbers import IP_IN_IP
from lbmux.wire.packet import Packet, ip_packet


def sharing(muxes: Collection[Address], own: Collection[Address]) -> list[Address]:
    """Return the muxes that share fragments, in the same order on each. Return none if we are not one of them.

    A mux may be listed with an address of each family. It counts once, with the family in which we are listed.
    """
    family = min((address.version for address in own if address in muxes), default=0)
    return sorted((mux for mux in muxes if mux.version == family), key=int)


def owner_of(fragment: Packet, muxes: Sequence[Address]) -> Address:
    """Return the mux that owns this fragment."""
    fields = fragment.source.packed + fragment.destination.packed + fragment.identification.to_bytes(4, "big")
    return muxes[mmh3.hash(fields, 0, signed=False) % len(muxes)]


def to_mux(fragment: Packet, source: Address, mux: Address) -> bytes:
    """Encapsulate the fragment in IP in IP, to the mux that owns it."""
    return ip_packet(source, mux, IP_IN_IP[fragment.version], fragment.data, traffic_class=fragment.traffic_class)


def is_from_mux(packet: Packet, muxes: Collection[Address]) -> bool:
    """Return whether a packet to our own address is a fragment from another mux."""
    return packet.protocol in IP_IN_IP.values() and not packet.is_fragment and packet.source in muxes
