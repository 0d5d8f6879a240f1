"""The measurements behind the driver's design: TPACKET_V2 or V3 to receive, sendmmsg or a transmit ring to send.

It also measures bypassing the queueing discipline, and busy polling in place of epoll. Each variant runs in the loop
without look-ups (empty_loop.py) between the same two namespaces: packets per second and CPU time per frame at full
load, and the round-trip time at 1000 packets per second. On two cores the generator is the bottleneck, so compare the
CPU time per frame. The variants that lost exist only here.
"""

import mmap
import os
import socket
import struct
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np
from numba import types

from bench.live import Bed
from bench.report import REPETITIONS, Result
from lbmux.codegen.compiled import compiled
from lbmux.datapath.memory import Pointer, at_address, int64, layout, rows, u32, u64
from lbmux.datapath.verdicts import PASSES
from lbmux.frames.batch import Batch
from lbmux.frames.packet_ring import (
    ETH_P_ALL,
    PACKET_IGNORE_OUTGOING,
    PACKET_QDISC_BYPASS,
    PACKET_RESERVE,
    PACKET_RX_RING,
    PACKET_VERSION,
    SOL_PACKET,
    PacketRing,
)
from lbmux.frames.ring_slots import HEADER, header_row
from lbmux.frames.socket_filters import NOTHING, attach
from lbmux.targets.native import HEADROOM_BYTES

PACKET_TX_RING, TPACKET_V2, TPACKET_V3 = 13, 1, 2
BLOCK_BYTES, BLOCKS, RETIRE_MS = 1 << 18, 64, 1
TX_STRIDE_BYTES, TX_FRAMES, TX_DATA = 2048, 1024, 32
SEND_REQUEST = 1

BLOCK = layout(
    ("version", "u4"), ("private", "u4"), ("status", "u4"), ("packets", "u4"), ("first", "u4"), ("length", "u4")
)
"""struct tpacket_block_desc"""
HEADER_3 = layout(
    ("next", "u4"), ("seconds", "u4"), ("nanoseconds", "u4"), ("captured", "u4"), ("length", "u4"), ("status", "u4"),
    ("mac", "u2"), ("net", "u2"),
)  # fmt: skip
"""struct tpacket3_hdr"""
block_row, header3_row, octet_row = rows(BLOCK), rows(HEADER_3), rows(layout(("value", "u8")))
send = types.ExternalFunction("send", types.int64(types.int32, Pointer, types.uint64, types.int32))


class BlockRing(PacketRing):
    """TPACKET_V3: the kernel delivers blocks when they are full or after a time-out."""

    def __init__(self, interface: str) -> None:
        super().__init__(interface, frames=1)
        attach(self._socket, NOTHING)  # it only sends
        self._blocks = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock = self._blocks
        sock.setsockopt(SOL_PACKET, PACKET_VERSION, struct.pack("i", TPACKET_V3))
        sock.setsockopt(SOL_PACKET, PACKET_RESERVE, struct.pack("I", HEADROOM_BYTES))
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, struct.pack("i", 1))
        request = struct.pack("7I", BLOCK_BYTES, BLOCKS, 2048, BLOCK_BYTES * BLOCKS // 2048, RETIRE_MS, 0, 0)
        sock.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
        memory = mmap.mmap(sock.fileno(), BLOCK_BYTES * BLOCKS, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._memory3 = np.frombuffer(memory, np.uint8)
        sock.bind((interface, ETH_P_ALL))
        # current block, frames read from it, the next frame's offset, whether to return the block to the kernel
        self._state = np.zeros(4, np.int64)

    def fileno(self) -> int:
        return self._blocks.fileno()

    def receive(self, batch: Batch) -> int:
        batch.count = int(
            _receive3(np.uint64(self._memory3.ctypes.data), self._state, batch.address, batch.length, batch.capacity)
        )
        return batch.count

    def release(self, batch: Batch) -> None:
        if self._state[3]:
            _release3(np.uint64(self._memory3.ctypes.data), self._state)


@compiled
def _receive3(memory, state, address, length, capacity):  # type: ignore[no-untyped-def]
    block = memory + u64(state[0] * BLOCK_BYTES)
    head = block_row(at_address(block), 0)
    if (head.status & 1) == 0:
        return 0
    if state[1] == 0:
        state[2] = head.first
    count = 0
    while count < capacity and state[1] < head.packets:
        packet = header3_row(at_address(block + u64(state[2])), 0)
        address[count], length[count] = block + u64(state[2]) + u64(packet.mac), packet.captured
        state[1], state[2] = state[1] + 1, state[2] + int64(packet.next)
        count += 1
    state[3] = state[1] == head.packets
    return count


@compiled
def _release3(memory, state):  # type: ignore[no-untyped-def]
    block_row(at_address(memory + u64(state[0] * BLOCK_BYTES)), 0).status = 0
    state[0], state[1], state[3] = (state[0] + 1) % BLOCKS, 0, 0


class TransmitRing:
    """Sends through an mmap-ed ring: one copy in user space, one system call per batch. A mixin for the rings below."""

    def __init__(self, interface: str) -> None:
        super().__init__(interface)
        self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock = self._out
        sock.setsockopt(SOL_PACKET, PACKET_VERSION, struct.pack("i", TPACKET_V2))
        sock.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, struct.pack("i", 1))
        size = TX_STRIDE_BYTES * TX_FRAMES
        sock.setsockopt(SOL_PACKET, PACKET_TX_RING, struct.pack("4I", 1 << 16, size >> 16, TX_STRIDE_BYTES, TX_FRAMES))
        memory = mmap.mmap(sock.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._memory_out = np.frombuffer(memory, np.uint8)
        attach(sock, NOTHING)  # it receives nothing
        sock.bind((interface, 0x0800))
        self._place = np.zeros(1, np.int64)

    def send(self, batch: Batch) -> int:
        ring = np.uint64(self._memory_out.ctypes.data)
        return int(
            _send_ring(self._out.fileno(), ring, self._place, batch.address, batch.length, batch.verdict, batch.count)
        )


@compiled
def _send_ring(descriptor, ring, place, address, length, verdict, count):  # type: ignore[no-untyped-def]
    sent = 0
    for index in range(count):
        if verdict[index] >= PASSES:
            continue
        slot = ring + u64(place[0] * TX_STRIDE_BYTES)
        head = header_row(at_address(slot), 0)
        if head.status != 0:
            send(descriptor, at_address(u64(0)), 0, 0)  # full: wait until the kernel has sent all frames
        for word in range((length[index] + 7) >> 3):
            octet_row(at_address(slot + u64(TX_DATA)), word).value = octet_row(at_address(address[index]), word).value
        head.length = length[index]
        head.status = u32(SEND_REQUEST)
        place[0] = (place[0] + 1) % TX_FRAMES
        sent += 1
    if sent > 0:
        send(descriptor, at_address(u64(0)), 0, socket.MSG_DONTWAIT)
    return sent


class PacketRingWithTransmitRing(TransmitRing, PacketRing):
    """TPACKET_V2 in both directions."""


class BlockRingWithTransmitRing(TransmitRing, BlockRing):
    """TPACKET_V3 in, TPACKET_V2 out."""


class QueueingRing(PacketRing):
    """Sends through the interface's queueing discipline."""

    def __init__(self, interface: str) -> None:
        super().__init__(interface)
        self._out.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, struct.pack("i", 0))


class BusyRing(PacketRing):
    """A ring that is always readable, so that the event loop polls it and never sleeps."""

    def __init__(self, interface: str) -> None:
        super().__init__(interface)
        self._always = os.eventfd(1)

    def fileno(self) -> int:
        return self._always


RINGS = {
    "v2-sendmmsg": PacketRing, "v2-ring": PacketRingWithTransmitRing, "v3-sendmmsg": BlockRing,
    "v3-ring": BlockRingWithTransmitRing, "v2-sendmmsg-qdisc": QueueingRing, "v2-sendmmsg-busy": BusyRing,
}  # fmt: skip
assert HEADER.itemsize == TX_DATA


def run() -> list[Result]:
    from bench.latency import measure

    figures: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in RINGS}
    with Bed() as bed:
        for _ in range(REPETITIONS):
            for name in RINGS:
                bed.start_empty(name)
                used_ns = cpu_ns(bed.process.pid)
                done = bed.generate()
                figures[name]["pps"].append(done["pps"])
                figures[name]["cpu_ns"].append((cpu_ns(bed.process.pid) - used_ns) / max(done["back"], 1))
                for key, value in measure(bed).items():
                    figures[name][key].append(value)
    middle = {name: {key: median(values) for key, values in measured.items()} for name, measured in figures.items()}
    first, results = middle["v2-sendmmsg"], []
    for name, of in middle.items():
        note = f"there and back at 1000 pps: median {of['median_us']:.0f} µs, 99th percentile {of['p99_us']:.0f} µs"
        ratio = of["pps"] / first["pps"]
        results.append(Result("rings", name, of["pps"] / 1000, "kpps", "v2-sendmmsg", ratio, note=note))
        ratio = of["cpu_ns"] / first["cpu_ns"]
        results.append(Result("rings", f"{name}, CPU", of["cpu_ns"], "ns a frame", "v2-sendmmsg", ratio))
    return results


def cpu_ns(process_id: int) -> int:
    """Return the CPU time of a process's main thread. Unlike its rate it varies little on a shared machine."""
    return int(Path(f"/proc/{process_id}/schedstat").read_text().split()[0])
