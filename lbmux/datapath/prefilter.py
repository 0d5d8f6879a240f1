"""The prefilter: whether a trace client may want a frame, judged by its headers alone.

It runs only while a trace client is connected. A prefilter is coarser than the filter that it was built from
(lbmux.tracing.prefilter_builder), so a few comparisons are enough.
"""

from lbmux.datapath.frame import frame, frame_end
from lbmux.datapath.headers import TYPE_IPV4, TYPE_IPV6, ethernet, ipv4, ipv6, tcp
from lbmux.datapath.memory import advance, beyond, int64, layout, rows, step, u64
from lbmux.datapath.parse import mapped
from lbmux.wire.header_layouts import ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES
from lbmux.wire.numbers import IPV4_WITHOUT_OPTIONS

PREFILTER = layout(
    ("source_high", "u8"), ("source_low", "u8"), ("source_high_mask", "u8"), ("source_low_mask", "u8"),
    ("destination_high", "u8"), ("destination_low", "u8"), ("destination_high_mask", "u8"),
    ("destination_low_mask", "u8"), ("either_high", "u8"), ("either_low", "u8"), ("either_high_mask", "u8"),
    ("either_low_mask", "u8"), ("ports", "u8"), ("ports_mask", "u8"), ("either_port", "u8"), ("either_port_mask", "u8"),
    ("protocol", "u8"), ("protocol_mask", "u8"), ("sent", "u8"), ("dropped", "u8"),
)  # fmt: skip
"""One row: each value must match in the bits of its mask; a mask of 0 matches everything. Addresses and ports are as
loaded (lbmux.addresses); ``either`` matches source or destination. ``sent`` and ``dropped``: whether frames with such a
verdict are wanted."""
prefilter_row = rows(PREFILTER)
PORTS_BYTES = 4


@step
def within(high, low, wanted_high, wanted_low, high_mask, low_mask):
    return (((high ^ wanted_high) & high_mask) | ((low ^ wanted_low) & low_mask)) == u64(0)


@step
def fits(prefilter, source_high, source_low, destination_high, destination_low, ports, protocol):
    """Return whether headers match the prefilter."""
    ports, protocol = u64(ports), u64(protocol)
    either = within(
        source_high, source_low, prefilter.either_high, prefilter.either_low, prefilter.either_high_mask,
        prefilter.either_low_mask
    ) or within(
        destination_high, destination_low, prefilter.either_high, prefilter.either_low, prefilter.either_high_mask,
        prefilter.either_low_mask,
    )  # fmt: skip
    port = ((ports ^ prefilter.either_port) & prefilter.either_port_mask) == u64(0) or (
        ((ports >> u64(16)) ^ prefilter.either_port) & prefilter.either_port_mask
    ) == u64(0)
    return (
        ((protocol ^ prefilter.protocol) & prefilter.protocol_mask) == u64(0)
        and ((ports ^ prefilter.ports) & prefilter.ports_mask) == u64(0)
        and port
        and either
        and within(source_high, source_low, prefilter.source_high, prefilter.source_low, prefilter.source_high_mask,
                   prefilter.source_low_mask)
        and within(destination_high, destination_low, prefilter.destination_high, prefilter.destination_low,
                   prefilter.destination_high_mask, prefilter.destination_low_mask)
    )  # fmt: skip


@step
def passes(context, prefilter):
    """Return whether the frame matches. A frame with headers at unusual offsets always does."""
    start, end = frame(context), frame_end(context)
    if beyond(advance(start, int64(ETHERNET_BYTES + IPV4_BYTES + PORTS_BYTES)), end):
        return False
    kind = ethernet(start, 0).type
    if kind == TYPE_IPV4 and ipv4(start, ETHERNET_BYTES).version_ihl == IPV4_WITHOUT_OPTIONS:
        ip = ipv4(start, ETHERNET_BYTES)
        ports = tcp(start, ETHERNET_BYTES + IPV4_BYTES).ports
        return fits(prefilter, u64(0), mapped(ip.source), u64(0), mapped(ip.destination), ports, ip.protocol)
    if kind == TYPE_IPV6 and not beyond(advance(start, int64(ETHERNET_BYTES + IPV6_BYTES + PORTS_BYTES)), end):
        ip6 = ipv6(start, ETHERNET_BYTES)
        ports = tcp(start, ETHERNET_BYTES + IPV6_BYTES).ports
        return fits(
            prefilter, ip6.source_high, ip6.source_low, ip6.destination_high, ip6.destination_low, ports, ip6.next
        )
    return True
