"""Decapsulate: the outer header comes off, and the inner packet stands behind the Ethernet header again.

The first step at a host, after the agent has seen that the packet is tunnelled to it by one of its muxes.
"""

from lbmux.datapath.encapsulate import write_ethernet
from lbmux.datapath.headers import ETHERNET_BYTES, ethernet
from lbmux.datapath.memory import advance, beyond, int64, step, u32, u64
from lbmux.datapath.world import frame, frame_end, grow


@step
def decapsulate(world, start, outer_bytes):
    """Take ``outer_bytes`` off the frame at ``start``; False where it cannot be shrunk."""
    eth = ethernet(start, 0)
    destination = u64(eth.destination_low) | (u64(eth.destination_high) << u64(32))
    source = u64(eth.source_high) | (u64(u32(eth.source_low)) << u64(16))
    if not grow(world, int64(-outer_bytes)):
        return False
    start = frame(world)
    if beyond(advance(start, ETHERNET_BYTES), frame_end(world)):
        return False
    write_ethernet(start, source, destination)
    return True
