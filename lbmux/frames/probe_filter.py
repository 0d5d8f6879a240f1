"""Classic BPF programs that separate muxes' probes of a host (lbmux.tables.host_probes) from other tunnelled packets.

An agent in user space reads probes from a ring of their own. If a flood fills the ring for other packets, the muxes
still get answers and do not consider the host dead.
"""

from lbmux.frames.socket_filters import (
    AT_LEAST,
    AT_LEAST_INDEX,
    EQUAL,
    JUMP,
    LOAD_BYTE,
    LOAD_BYTE_BEHIND,
    LOAD_HALF,
    LOAD_HALF_BEHIND,
    LOAD_LENGTH,
    NOTHING,
    PORT_AT,
    RETURN,
    SET_INDEX,
    SHIFT,
    SUBTRACT,
    WHOLE,
    Line,
    Step,
    resolved,
)
from lbmux.wire.header_layouts import (
    ETHERNET,
    ETHERNET_BYTES,
    GENEVE,
    GRE,
    GUE,
    IPV4,
    IPV4_BYTES,
    IPV6,
    IPV6_BYTES,
    PROTOCOL_AT,
    TCP_BYTES,
    UDP_BYTES,
)
from lbmux.wire.numbers import (
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    GRE_PROTOCOL,
    IPIP_PROTOCOL,
    IPV4_WITHOUT_OPTIONS,
    IPV6_PROTOCOL,
    TCP_PROTOCOL,
    UDP_PROTOCOL,
)

SHORTEST = ETHERNET_BYTES + 2 * IPV4_BYTES + TCP_BYTES
VERSION_1 = 0x40
"""A GUE header of variant 1 is the inner IP header, whose first byte is at least this."""


def only_probes(port: int, gue_port: int, geneve_port: int) -> tuple[Line, ...]:
    """Accept TCP segments to ``port`` inside a tunnel whose outer header has no options, as a mux writes it."""
    return (*resolved([*_probes(port, gue_port, geneve_port), (RETURN, "", "", WHOLE), "other"]), *NOTHING)


def without_probes(port: int, gue_port: int, geneve_port: int, others: tuple[Line, ...]) -> tuple[Line, ...]:
    """Accept what ``others`` accepts, but nothing that ``only_probes`` accepts."""
    return (*resolved([*_probes(port, gue_port, geneve_port), (RETURN, "", "", 0), "other"]), *others)


def _probes(port: int, gue_port: int, geneve_port: int) -> list[Step]:
    """Fall through with a probe, and jump to ``other`` with other frames. Nothing beyond a frame's end is loaded."""
    return [
        (LOAD_LENGTH, "", "", 0), (AT_LEAST, "", "other", SHORTEST),
        (LOAD_HALF, "", "", ETHERNET.at("type")),
        (EQUAL, "over4", "", ETHERTYPE_IPV4), (EQUAL, "over6", "other", ETHERTYPE_IPV6),
        "over4",
        (LOAD_BYTE, "", "", ETHERNET_BYTES), (EQUAL, "", "other", IPV4_WITHOUT_OPTIONS),
        *_behind(4, ETHERNET_BYTES + IPV4_BYTES, gue_port, geneve_port),
        "over6",
        *_behind(6, ETHERNET_BYTES + IPV6_BYTES, gue_port, geneve_port),
        "inner",
        (LOAD_BYTE_BEHIND, "", "", 0), (SHIFT, "", "", 4), (EQUAL, "in4", "", 4), (EQUAL, "in6", "other", 6),
        "in4",
        *_to_port(IPV4.at("protocol"), IPV4_BYTES, port), (EQUAL, "probe", "other", port),
        "in6",
        *_to_port(IPV6.at("next"), IPV6_BYTES, port), (EQUAL, "probe", "other", port),
        "probe",
    ]  # fmt: skip


def _behind(version: int, outer_end: int, gue_port: int, geneve_port: int) -> list[Step]:
    """Set the index to the inner header's offset, and go to ``inner``. ``outer_end``: that of the outer IP header."""
    name = f"over{version}-"
    header_bytes = {"ipip": 0, "gre": GRE.size, "geneve": UDP_BYTES + GENEVE.size, "gue": UDP_BYTES + GUE.size,
             "gue1": UDP_BYTES}  # fmt: skip
    steps: list[Step] = [
        (LOAD_BYTE, "", "", ETHERNET_BYTES + PROTOCOL_AT[version]),
        (EQUAL, name + "ipip", "", IPIP_PROTOCOL), (EQUAL, name + "ipip", "", IPV6_PROTOCOL),
        (EQUAL, name + "gre", "", GRE_PROTOCOL), (EQUAL, "", "other", UDP_PROTOCOL),
        (LOAD_HALF, "", "", outer_end + PORT_AT),
        (EQUAL, name + "geneve", "", geneve_port), (EQUAL, "", "other", gue_port),
        (LOAD_BYTE, "", "", outer_end + UDP_BYTES), (AT_LEAST, name + "gue1", name + "gue", VERSION_1),
    ]  # fmt: skip
    for kind, length in header_bytes.items():
        steps += [name + kind, (SET_INDEX, "", "", outer_end + length), (JUMP, "inner", "", 0)]
    return steps


def _to_port(protocol_at: int, header_bytes: int, port: int) -> list[Step]:
    """Load the destination port of an inner TCP segment that is not a fragment; otherwise go to ``other``."""
    return [
        (LOAD_LENGTH, "", "", 0), (SUBTRACT, "", "", header_bytes + TCP_BYTES), (AT_LEAST_INDEX, "", "other", 0),
        (LOAD_BYTE_BEHIND, "", "", protocol_at), (EQUAL, "", "other", TCP_PROTOCOL),
        (LOAD_HALF_BEHIND, "", "", header_bytes + PORT_AT),
    ]  # fmt: skip
