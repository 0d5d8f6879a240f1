"""Frames and tables for benchmarks: one service, a hundred backends, any number of flows."""

import ipaddress

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import mac_to_int
from lbmux.config.models import Config
from lbmux.frames.batch import HEADROOM_BYTES, Batch
from lbmux.linux.next_hops import NextHop
from lbmux.tables.mux_tables import MuxTables, sizes_for
from lbmux.targets.regions import Tables

VIP, VIP6, PORT, BACKENDS = "192.0.2.1", "2001:db8::1", 80, 100
LOCAL = (ipaddress.IPv4Address("10.0.0.1"), ipaddress.IPv6Address("2001:db8:9::1"))
STRIDE_BYTES = 192
SOURCE_AT, PORTS_AT = {4: 26, 6: 34}, {4: 34, 6: 54}
"""Offsets by IP version: of the last four bytes of the source address, and of the ports."""


def config(
    limit: int = 1 << 20, backends: int = BACKENDS, version: int = 4, outer: int | None = None, **more: object
) -> Config:
    """Return a configuration with one service, on hosts of the family ``outer``, that tracks all flows.

    ``more`` are further service keys.
    """
    first = {4: ipaddress.ip_address("10.1.0.1"), 6: ipaddress.ip_address("2001:db8:1::1")}
    dips = [{"dip": str(first[version] + n), "host": str(first[outer or version] + n)} for n in range(backends)]
    vip = {4: VIP, 6: VIP6}[version]
    service = {"name": "web", "vip": vip, "protocol": "tcp", "port": PORT, "flows": "all", "backends": dips}
    return Config.model_validate({"flows": {"limit": limit}, "services": [service | more]})


def tables(config: Config, workers: int = 1, memory: Tables | None = None) -> Tables:
    """Return tables with that configuration in force and every next hop known."""
    result = memory or Tables.allocate(sizes_for(config, workers))
    mux = MuxTables(result, *LOCAL)
    mux.commit(mux.plan(config))
    hop = NextHop(0, mac_to_int("02:00:00:00:00:01"), mac_to_int("02:00:00:00:00:02"), 1500)
    for destination in mux.destinations():
        mux.set_next_hop(destination, hop)
    return result


def tcp_frame(length: int = 64, destination: str = "02:00:00:00:00:01", version: int = 4, flags: str = "A") -> bytes:
    """Build an Ethernet frame of ``length`` bytes to the VIP."""
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    ethernet = Ether(dst=destination, src="02:00:00:00:00:02")
    header = IP(src="198.18.0.1", dst=VIP) if version == 4 else IPv6(src="2001:db8:2::1", dst=VIP6)
    packet = ethernet / header / TCP(dport=PORT, flags=flags)
    return bytes(packet / bytes(max(0, length - len(packet))))


class Frames:
    """``count`` frames, each of another flow, side by side in memory."""

    def __init__(self, count: int, length: int = 64, destination: str = "02:00:00:00:00:01", version: int = 4) -> None:
        """Sources are from 198.18.0.0/15 (RFC 2544), in random order so that no prefetcher learns the flow table."""
        frame = np.frombuffer(tcp_frame(length, destination, version), np.uint8)
        self.count, self.length = count, len(frame)
        stride, length = STRIDE_BYTES if length <= 100 else 2048, self.length
        self.memory = np.zeros((count, stride), np.uint8)
        self.memory[:, HEADROOM_BYTES : HEADROOM_BYTES + length] = frame
        order = np.random.default_rng(1).permutation(count).astype(np.uint32)
        at = HEADROOM_BYTES
        source = (np.uint32(0xC6120000) + (order & np.uint32(0x1FFFF))).astype(">u4")
        port = (np.uint32(1024) + (order >> np.uint32(17))).astype(">u2")
        source_at, ports_at = at + SOURCE_AT[version], at + PORTS_AT[version]
        self.memory[:, source_at : source_at + 4] = source.view(np.uint8).reshape(count, 4)
        self.memory[:, ports_at : ports_at + 2] = port.view(np.uint8).reshape(count, 2)
        self._fresh: NDArray[np.uint8] = self.memory[:, : HEADROOM_BYTES + 64].copy()
        self._addresses = np.uint64(self.memory.ctypes.data) + np.arange(count, dtype=np.uint64) * np.uint64(stride)
        self.batch = Batch(count)
        self.reset()

    def reset(self) -> None:
        """Restore the frames as they were before the data path."""
        self.memory[:, : HEADROOM_BYTES + 64] = self._fresh
        self.batch.address[:] = self._addresses + np.uint64(HEADROOM_BYTES)
        self.batch.length[:] = self.length
        self.batch.verdict[:] = 0
        self.batch.interface[:] = 0
        self.batch.count = self.count
