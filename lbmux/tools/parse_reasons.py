"""What the parse step said of a frame that it took no further, in words for people."""

from lbmux.datapath.verdicts import Verdict

PARSE_REASONS = {
    Verdict.NOT_IP: "neither IPv4 nor IPv6",
    Verdict.VLAN: "more VLAN tags than are followed",
    Verdict.TRUNCATED: "ends within a header",
    Verdict.MALFORMED: "a length or a version that cannot be",
    Verdict.OPTIONS: "more extension headers than are followed",
    Verdict.FRAGMENT: "a fragment: only its datagram's first one has ports, so it is the slow path's",
    Verdict.ICMP: "ICMP has no ports, so it is the slow path's",
    Verdict.PROTOCOL: "neither TCP nor UDP nor ICMP",
}
"""By the verdict that parse gives; any other is of a later step."""
