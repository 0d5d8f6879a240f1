"""Verdicts: what became of a packet.  A packet never raises; it ends in one of these, and is counted.

The three kinds differ in what a driver does: send the frame, leave it to the kernel's stack as it
came, or drop it.
"""

from enum import IntEnum
from typing import Literal

Kind = Literal["send", "pass", "drop"]

PASSES, DROPS = 16, 64
"""Where the numbers of the second and the third kind begin."""


class Verdict(IntEnum):
    """The number is what the data path returns and the index of its counter; the name is what people see."""

    FORWARDED = 0  # mux: encapsulated towards a backend
    DELIVERED = 1  # agent: decapsulated, for the local stack
    REPLIED = 2  # agent: a reply, its source translated from DIP to VIP
    HAIRPIN = 3  # agent: a reply to the backend itself, which is the client: back into the local stack

    NOT_IP = PASSES  # ARP and whatever else is neither IPv4 nor IPv6
    VLAN = PASSES + 1  # in the kernel any tagged frame, which user space does; there one of three tags or more
    TRUNCATED = PASSES + 2  # ends within a header
    MALFORMED = PASSES + 3  # lengths or version that cannot be
    OPTIONS = PASSES + 4  # kernel: IPv4 options or IPv6 extension headers, which user space does; there too many
    FRAGMENT = PASSES + 5
    ICMP = PASSES + 6
    PROTOCOL = PASSES + 7  # neither TCP nor UDP
    NOT_VIP = PASSES + 8  # no service has this destination
    NOT_TUNNELLED = PASSES + 9  # agent: not IPIP to one of our addresses
    NOT_TRANSLATED = PASSES + 10  # agent: traffic of a DIP that no mux brought
    NO_NEIGHBOUR = PASSES + 11  # the next hop's MAC address is not known yet
    TOO_BIG = PASSES + 12  # would not fit the path to the host once encapsulated; kernel: super-frames too
    UNSETTLED = PASSES + 14  # kernel: its slot has another backend than before, so user space looks for its flow
    TTL = PASSES + 13  # its time to live (hop limit) ends here
    REJECT = PASSES + 20  # kernel: its service has no backend, and user space is to tell the client
    UNKNOWN = PASSES + 15  # agent: of a connection that is not known here, so the host's sockets are asked
    UNKNOWN_REPLY = PASSES + 16  # agent: of a backend's connection without an entry, so the host's sockets are asked
    UNTRACKED = PASSES + 17  # agent: a backend's datagram without an entry; it leaves as it is
    REPLY_FRAGMENT = PASSES + 18  # agent: from a backend's address; user space puts the datagram together
    REPLY_ICMP = PASSES + 19  # agent: an ICMP error from a backend's address, whose quote user space translates

    NO_BACKEND = DROPS  # the service has no backend that takes new flows
    DENIED = DROPS + 1  # its source is not allowed to use the service
    NO_ROOM = DROPS + 2  # the frame could not be grown or shrunk
    NOT_A_MUX = DROPS + 3  # agent: tunnelled, but from none of the muxes
    NOT_HERE = DROPS + 4  # agent: tunnelled to us for a VIP that has no backend here
    UNSENT = DROPS + 5  # the interface took no more frames
    OUT_OF_TABLE = DROPS + 6  # an index beyond its table: never seen; proves the bound to the kernel's verifier
    CONGESTED = DROPS + 7  # agent: a router marked it, and its sender would not understand (RFC 6040)
    RESET_HELD = DROPS + 8  # agent: the host has no such connection after all; the next packet is asked about

    @property
    def kind(self) -> Kind:
        return "send" if self < PASSES else "pass" if self < DROPS else "drop"

    @property
    def label(self) -> str:
        return self.name.lower()


VERDICTS = 128
"""Rows of the counter table: a power of two above every number."""
