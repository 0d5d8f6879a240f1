"""Builds the prefilter of the kernel programs (lbmux.datapath.prefilter) from a filter of frames.

A prefilter passes all frames that match the filter, and maybe more; lbmux.tracing.event_filter decides about those. A
filter with `or`, `not` or parentheses has a prefilter that passes everything.
"""

from ipaddress import ip_network

from lbmux.addresses import port_to_wire
from lbmux.datapath.verdicts import Verdict
from lbmux.tables.flow_filter import DIRECTIONS, END, TYPES, is_address, masked, tokens
from lbmux.wire.numbers import TCP_PROTOCOL, UDP_PROTOCOL

Prefilter = dict[str, int]
"""Fields of lbmux.datapath.prefilter.PREFILTER."""
EVERYTHING: Prefilter = {"sent": 1, "dropped": 1}
UNCLEAR = frozenset(("or", "||", "not", "!", "(", ")"))
WORDS: dict[str, Prefilter] = {
    "and": {},
    "&&": {},
    "drop": {"sent": 0},
    "tcp": {"protocol": TCP_PROTOCOL, "protocol_mask": 0xFF},
    "udp": {"protocol": UDP_PROTOCOL, "protocol_mask": 0xFF},
}
SIDES = {"src": "source", "dst": "destination", "": "either"}


def prefilter_of(text: str) -> Prefilter:
    """Return the prefilter of a valid filter."""
    words = [word for word, _ in tokens(text)]
    fields = dict(EVERYTHING)
    if not UNCLEAR.isdisjoint(words):
        return fields
    direction, kind, at = "", "host", 0
    while (word := words[at]) != END:
        at += 1
        if word in WORDS:
            fields |= WORDS[word]
        elif word == "verdict":
            became = Verdict[words[at].upper()].kind
            fields, at = fields | {"sent": int(became == "send"), "dropped": int(became == "drop")}, at + 1
        elif word in ("service", "backend"):
            at += 1
        elif word in DIRECTIONS:
            direction, kind = word, "host"
        elif word in TYPES:
            kind, direction = word, direction if words[at - 2] == direction else ""
        elif kind == "port":
            fields |= _of_port(direction, int(word))
        elif kind != "portrange" and (kind == "net" or is_address(word)):
            fields |= _of_network(SIDES[direction], word)
    return fields


def _of_port(direction: str, port: int) -> Prefilter:
    value = port_to_wire(port)
    if not direction:
        return {"either_port": value, "either_port_mask": 0xFFFF}
    shift = 16 * (direction == "dst")
    return {"ports": value << shift, "ports_mask": 0xFFFF << shift}


def _of_network(side: str, text: str) -> Prefilter:
    names = (f"{side}_{name}" for name in ("high", "low", "high_mask", "low_mask"))
    return dict(zip(names, masked(ip_network(text)), strict=True))
