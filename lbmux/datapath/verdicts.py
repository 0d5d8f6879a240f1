"""Verdicts: the results of a packet. A packet never raises; it ends in one of these, and datapath.counters counts it.

A verdict's kind says what the driver does: send the frame, pass it to the kernel's stack unchanged, or drop it.
"""

from enum import IntEnum
from typing import Literal

Kind = Literal["send", "pass", "drop"]

PASSES, DROPS = 16, 64
"""The first numbers of the second and the third kind."""


class Verdict(IntEnum):
    """The number is what the data path returns and the index of its counter; the name is what people see.

    ``meaning`` is one line about it, for docs/metrics.md.
    """

    meaning: str

    def __new__(cls, number: int, meaning: str = "") -> "Verdict":
        verdict = int.__new__(cls, number)
        verdict._value_ = number
        verdict.meaning = meaning
        return verdict

    FORWARDED = 0, "mux: encapsulated and sent to a backend"
    DELIVERED = 1, "agent: decapsulated and delivered to the local stack"
    REPLIED = 2, "agent: a reply, sent with the VIP as its source"
    HAIRPIN = 3, "agent: a reply to a client on the same host, returned to the local stack"

    NOT_IP = PASSES, "neither IPv4 nor IPv6 (ARP, for example)"
    VLAN = PASSES + 1, "kernel: any VLAN tag; user space handles up to two and passes frames with more"
    TRUNCATED = PASSES + 2, "the frame ends within a header"
    MALFORMED = PASSES + 3, "impossible lengths or version"
    OPTIONS = PASSES + 4, "kernel: IPv4 options or IPv6 extension headers; user space passes frames with over eight"
    FRAGMENT = PASSES + 5, "an IP fragment; the slow path keeps datagrams together"
    ICMP = PASSES + 6, "an ICMP or ICMPv6 message; the slow path handles pings and errors"
    PROTOCOL = PASSES + 7, "neither TCP nor UDP"
    NOT_VIP = PASSES + 8, "no service has this address, protocol and port"
    NOT_TUNNELLED = PASSES + 9, "agent: no tunnel packet to an address of this host"
    NOT_TRANSLATED = PASSES + 10, "agent: traffic of a DIP that no mux sent here"
    NO_NEIGHBOUR = PASSES + 11, "the next hop's MAC address is not known yet"
    TOO_BIG = PASSES + 12, "does not fit the path to the host once encapsulated; kernel: also super-frames"
    TTL = PASSES + 13, "the TTL (hop limit) reaches zero here"
    REJECT = PASSES + 20, "kernel: the service has no backend, and user space rejects the packet"
    UNKNOWN_CONNECTION = PASSES + 15, "agent: an unknown connection; user space asks the host's sockets"
    UNKNOWN_REPLY = PASSES + 16, "agent: a TCP reply without a flow entry; user space asks the host's sockets"
    UNTRACKED = PASSES + 17, "agent: a datagram from a DIP without a flow entry; it leaves unchanged"
    REPLY_FRAGMENT = PASSES + 18, "agent: a fragment from a DIP; user space reassembles and translates it"
    REPLY_ICMP = PASSES + 19, "agent: an ICMP error from a DIP; user space translates its quote"

    NO_BACKEND = DROPS, "no backend of the service takes new flows"
    DENIED = DROPS + 1, "the access list denies the source"
    NO_HEADROOM = DROPS + 2, "the frame could not grow or shrink"
    NOT_A_MUX = DROPS + 3, "agent: a tunnel packet from an address that is not a mux"
    NO_LOCAL_BACKEND = DROPS + 4, "agent: a tunnel packet for a VIP without a backend on this host"
    UNSENT = DROPS + 5, "the interface accepted no more frames"
    OUT_OF_TABLE = DROPS + 6, "an index beyond its table; never happens, but proves the bound to the kernel's verifier"
    CONGESTED = DROPS + 7, "agent: a router marked congestion, and the sender does not support ECN (RFC 6040)"
    RESET_SUPPRESSED = (
        DROPS + 8,
        "agent: a RST for a connection that this host does not have; a later packet takes the second chance",
    )
    OVER_PACKET_RATE = DROPS + 9, "the service is over `packets_per_s`"
    OVER_FLOW_RATE = DROPS + 10, "a new flow, and the service is over `new_flows_per_s`"
    OVER_FLOW_SHARE = DROPS + 11, "a new flow, and the backend is over its weight's share of `new_flows_per_s`"
    BLACK_HOLED = DROPS + 12, "the VIP is flooded, and this mux drops all of its packets for a time"

    @property
    def kind(self) -> Kind:
        return "send" if self < PASSES else "pass" if self < DROPS else "drop"

    @property
    def label(self) -> str:
        return self.name.lower()


VERDICTS = 128
"""Rows of the counter table: a power of two above every number."""
