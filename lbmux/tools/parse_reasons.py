"""Why the parse step stopped at a frame, in words for people."""

from lbmux.datapath.verdicts import Verdict

PARSE_REASONS = {
    Verdict.NOT_IP: "neither IPv4 nor IPv6",
    Verdict.VLAN: "more VLAN tags than lbmux parses",
    Verdict.TRUNCATED: "ends within a header",
    Verdict.MALFORMED: "an impossible length or version",
    Verdict.OPTIONS: "more extension headers than lbmux parses",
    Verdict.FRAGMENT: "a fragment: only the first fragment has ports, so the slow path handles it",
    Verdict.ICMP: "ICMP has no ports, so the slow path handles it",
    Verdict.PROTOCOL: "neither TCP nor UDP nor ICMP",
}
"""The reason for each verdict of the parser. Other verdicts come from later steps."""
