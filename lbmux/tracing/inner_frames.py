"""Frames without their tunnel: the packet between client and VIP, as filters and captures take it."""

from ipaddress import IPv6Address

from lbmux.datapath.verdicts import Verdict
from lbmux.slowpath.tunnels import Ports, inner_frame
from lbmux.tracing.header_summary import HeaderSummary
from lbmux.wire.header_layouts import ETHERNET_BYTES
from lbmux.wire.packet import with_ethertype


def without_tunnel(arrived: bytes, left: bytes) -> bytes:
    """Return a frame as it left, without the headers between Ethernet's and the packet that came.

    Every kind of tunnel puts its headers in front, so the packet is the end of the outer packet, and as long as before.
    """
    inner, outer = HeaderSummary.read(arrived), HeaderSummary.read(left)
    end = outer.start + outer.length  # padding may follow
    packet = left[end - inner.length : end]
    version = 6 if isinstance(inner.source, IPv6Address) else 4
    return with_ethertype(left[:ETHERNET_BYTES], version) + packet


def flow_at_agent(arrived: bytes, left: bytes | None, verdict: Verdict, ports: Ports) -> bytes | None:
    """Return the frame between client and VIP: a tunnel's inner packet, or a translated reply.  None: as it came."""
    if left is not None:
        return left if verdict in (Verdict.REPLIED, Verdict.HAIRPIN) else without_tunnel(left, arrived)
    return inner_frame(arrived, ports)
