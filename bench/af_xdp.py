"""AF_XDP in copy mode beside AF_PACKET: why there is no ``--driver afxdp`` (docs/benchmarks.md).

Frames go from one end of a veth pair to a socket at the other, in batches; the CPU time includes the kernel's work on
both. An AF_XDP socket needs an XDP program that redirects frames to it. A second measurement counts what arrives of
frames as a sender on the same machine leaves them to a device.
"""

import contextlib
import ctypes
import mmap
import os
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator

import numpy as np
from numba import types
from numpy.typing import NDArray

from bench.frames import tcp_frame
from bench.live import Bed
from bench.report import Result
from lbmux.codegen.compiled import compiled
from lbmux.datapath.memory import Pointer, at_address, int64, layout, rows, u32, u64
from lbmux.frames.batch import HEADROOM_BYTES, Batch
from lbmux.frames.memory_fences import acquire, release
from lbmux.frames.packet_ring import PACKET_VNET_HDR, SOL_PACKET, PacketRing
from lbmux.frames.super_frames import NEEDS_CHECKSUM, TCP_OVER_IPV4, VNET
from lbmux.lab.namespaces import inside
from lbmux.targets.bpf import syscall
from lbmux.targets.bpf.syscall import XDP_GENERIC, XDP_NATIVE, Attach
from lbmux.wire.header_layouts import ETHERNET_BYTES, IPV4_BYTES, TCP_BYTES

AF_XDP, SOL_XDP, COPY = 44, 283, 1 << 1
MMAP_OFFSETS, RX_RING, TX_RING, UMEM_REG, FILL_RING, COMPLETION_RING = 1, 2, 3, 4, 5, 6
MAP_POPULATE = 0x8000
SOCKETS = 17
"""BPF_MAP_TYPE_XSKMAP"""
FRAMES, FRAME_BYTES, BATCH, ROUNDS, REPETITIONS = 2048, 4096, 64, 1000, 9
SIZES, MODES = (64, 1514), {"generic": XDP_GENERIC, "native": XDP_NATIVE}
SEGMENTS, SEGMENT_BYTES = 20, 1448
TRIES = 40

descriptor_row = rows(layout(("address", "u8"), ("length", "u4"), ("options", "u4")))
position_row, frame_row = rows(layout(("value", "u4"))), rows(layout(("value", "u8")))
send = types.ExternalFunction("send", types.int64(types.int32, Pointer, types.uint64, types.int32))


@compiled
def _receive(producer, consumer, ring, lengths):  # type: ignore[no-untyped-def]
    """Read the ring of received frames. Return how many there were."""
    place, end, count = position_row(at_address(consumer), 0).value, position_row(at_address(producer), 0).value, 0
    acquire()
    while place != end and count < len(lengths):
        lengths[count] = descriptor_row(at_address(ring), int64(place & u32(FRAMES - 1))).length
        place, count = u32(place + u32(1)), count + 1
    release()
    position_row(at_address(consumer), 0).value = place
    return count


@compiled
def _offer(producer, ring, count):  # type: ignore[no-untyped-def]
    """Give the kernel frames to fill: the oldest, which were read long ago."""
    place = position_row(at_address(producer), 0).value
    for _ in range(count):
        frame = int64(place & u32(FRAMES - 1))
        frame_row(at_address(ring), frame).value = u64(frame * FRAME_BYTES)
        place = u32(place + u32(1))
    release()
    position_row(at_address(producer), 0).value = place


@compiled
def _send(descriptor, transmit, completed, count, length):  # type: ignore[no-untyped-def]
    """Send the first frames, and wait until the kernel has."""
    producer, consumer, ring = transmit
    place = position_row(at_address(producer), 0).value
    for frame in range(count):
        row = descriptor_row(at_address(ring), int64(place & u32(FRAMES - 1)))
        row.address, row.length, row.options = u64(frame * FRAME_BYTES), u32(length), u32(0)
        place = u32(place + u32(1))
    release()
    position_row(at_address(producer), 0).value = place
    while position_row(at_address(consumer), 0).value != place:
        send(descriptor, at_address(u64(0)), 0, socket.MSG_DONTWAIT)
        acquire()
    position_row(at_address(completed[1]), 0).value = position_row(at_address(completed[0]), 0).value


Ring = tuple[np.uint64, np.uint64, np.uint64]
"""Addresses of a ring's producer, its consumer and its entries."""


class XdpSocket:
    """A socket for the frames of an interface's first queue, in this namespace."""

    def __init__(self, interface: str, mode: int) -> None:
        self._socket = socket.socket(AF_XDP, socket.SOCK_RAW, 0)
        self._library = ctypes.CDLL(None, use_errno=True)
        self.memory = np.frombuffer(mmap.mmap(-1, FRAMES * FRAME_BYTES), np.uint8)
        region = struct.pack("QQIIII", self.memory.ctypes.data, self.memory.nbytes, FRAME_BYTES, 0, 0, 0)
        self._socket.setsockopt(SOL_XDP, UMEM_REG, region)
        for ring in (FILL_RING, COMPLETION_RING, RX_RING, TX_RING):
            self._socket.setsockopt(SOL_XDP, ring, FRAMES)
        offsets = struct.unpack("16Q", self._socket.getsockopt(SOL_XDP, MMAP_OFFSETS, 128))
        self._maps: list[NDArray[np.uint8]] = []
        self._received, self._transmit = self._ring(offsets[0:4], 0, 16), self._ring(offsets[4:8], 0x80000000, 16)
        self._fill, self._completed = self._ring(offsets[8:12], 1 << 32, 8), self._ring(offsets[12:16], 3 << 31, 8)
        _offer(self._fill[0], self._fill[2], FRAMES)
        self._lengths = np.zeros(BATCH, np.uint32)
        index = socket.if_nametoindex(interface)
        address = struct.pack("HHIII", AF_XDP, COPY, index, 0, 0)
        if self._library.bind(self._socket.fileno(), address, len(address)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._link = self._redirect(index, mode)

    def _ring(self, offsets: tuple[int, ...], page: int, entry_bytes: int) -> Ring:
        producer, consumer, entries, _ = offsets
        protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | MAP_POPULATE
        length = entries + FRAMES * entry_bytes
        memory = np.frombuffer(mmap.mmap(self._socket.fileno(), length, flags, protection, offset=page), np.uint8)
        self._maps.append(memory)
        first = memory.ctypes.data
        return np.uint64(first + producer), np.uint64(first + consumer), np.uint64(first + entries)

    def _redirect(self, index: int, mode: int) -> int:
        """Attach a program that redirects all frames to the socket. Return its link."""
        attributes = ctypes.create_string_buffer(struct.pack("<5I", SOCKETS, 4, 4, 1, 0))
        sockets = syscall.command(syscall.Command.MAP_CREATE, attributes, "map of sockets")
        syscall.update_element(sockets, struct.pack("I", 0), struct.pack("I", self._socket.fileno()))
        program = syscall.load_program(Attach.XDP, redirect_code(sockets), "redirect").descriptor
        try:
            return syscall.create_link(program, index, Attach.XDP, mode)
        finally:
            os.close(program)
            os.close(sockets)

    def receive(self) -> int:
        """Take what is there, up to a batch. Return how many frames."""
        count = int(_receive(self._received[0], self._received[1], self._received[2], self._lengths))
        _offer(self._fill[0], self._fill[2], count)
        return count

    def send(self, count: int, length: int) -> None:
        _send(self._socket.fileno(), self._transmit, self._completed, count, length)

    def close(self) -> None:
        os.close(self._link)
        self._maps.clear()  # they hold the socket open
        self._socket.close()


def redirect_code(sockets: int) -> bytes:
    """Return ``return bpf_redirect_map(sockets, ctx->rx_queue_index, XDP_PASS)`` as BPF instructions."""
    lines = ((0x61, 2, 1, 16, 0), (0x18, 1, 1, 0, sockets), (0, 0, 0, 0, 0), (0xB7, 3, 0, 0, 2), (0x85, 0, 0, 0, 51),
             (0x95, 0, 0, 0, 0))  # fmt: skip
    return b"".join(struct.pack("<BBhi", code, to | of << 4, offset, value) for code, to, of, offset, value in lines)


def cpu_ns(work: Callable[[], object]) -> float:
    """Return the CPU time of a frame, in ns; ``work`` handles a batch."""
    work()
    times = []
    for _ in range(REPETITIONS):
        start = time.process_time_ns()
        for _ in range(ROUNDS):
            work()
        times.append((time.process_time_ns() - start) / ROUNDS / BATCH)
    return statistics.median(times)


@contextlib.contextmanager
def xdp_socket(mode: str) -> Iterator[XdpSocket]:
    """Open a socket at the mux's end. The queue is free again some time after the socket before has been closed."""
    for tries in range(TRIES + 1):
        try:
            opened = XdpSocket("b0", MODES[mode])
            break
        except OSError:
            if tries == TRIES:
                raise
            time.sleep(0.05)
    try:
        yield opened
    finally:
        opened.close()


def batch_of(length: int) -> tuple[Batch, NDArray[np.uint8]]:
    """Return a batch of frames, and the memory that has them."""
    memory = np.zeros((BATCH, 2048), np.uint8)
    memory[:, HEADROOM_BYTES : HEADROOM_BYTES + length] = np.frombuffer(tcp_frame(length), np.uint8)
    batch = Batch(BATCH)
    batch.count, batch.length[:] = BATCH, length
    batch.address[:] = memory.ctypes.data + np.arange(BATCH) * memory.shape[1] + HEADROOM_BYTES
    return batch, memory


class Source:
    """Sends a batch of frames of ``length`` bytes from the generator's end."""

    def __init__(self, ring: PacketRing, length: int) -> None:
        self.length = length
        self.batch, self.memory = batch_of(length)
        self._ring = ring
        self._sending_ns = cpu_ns(self.send)

    def send(self) -> None:
        self._ring.send(self.batch)

    def receive_ns(self, receive: Callable[[], int]) -> float:
        """Return the CPU time of a frame beyond being sent, in ns; ``receive`` returns how many it took."""

        def work() -> None:
            self.send()
            count = receive()
            while count < BATCH:
                count += receive()

        return cpu_ns(work) - self._sending_ns


def by_packet(source: Source) -> dict[str, float]:
    """Return the CPU time of a frame received and sent by AF_PACKET, in ns."""
    into = Batch(BATCH)
    with PacketRing("b0", 512) as ring:

        def receive() -> int:
            count = ring.receive(into)
            ring.release(into)
            return count

        received = source.receive_ns(receive)
        return {"AF_PACKET receives": received, "AF_PACKET sends": cpu_ns(lambda: ring.send(source.batch))}


def by_xdp(source: Source) -> dict[str, float]:
    """Return the CPU time of a frame received in each mode and sent by AF_XDP, in ns."""
    found = {}
    for mode in MODES:
        with xdp_socket(mode) as opened:
            found[f"AF_XDP receives, {mode}"] = source.receive_ns(opened.receive)
    with xdp_socket("generic") as opened:
        frames = opened.memory[: BATCH * FRAME_BYTES].reshape(BATCH, FRAME_BYTES)
        frames[:, : source.length] = source.memory[:, HEADROOM_BYTES : HEADROOM_BYTES + source.length]
        found["AF_XDP sends"] = cpu_ns(lambda: opened.send(BATCH, source.length))
    return found


def measured(bed: Bed, length: int) -> dict[str, float]:
    """Return the CPU time of a frame of ``length`` bytes received and sent in each way, in ns."""
    generator, mux = bed.lab.namespace("generator"), bed.lab.namespace("mux")
    with inside(generator, lambda: PacketRing("a0", BATCH)) as ring:
        source = Source(ring, length)
        return inside(mux, lambda: by_packet(source)) | inside(mux, lambda: by_xdp(source))


def super_frames_that_arrive(bed: Bed, mode: str) -> int:
    """Return how many frames arrive of one with SEGMENTS segments, which its sender leaves to a device."""
    header = np.zeros(1, VNET)
    header["flags"], header["kind"], header["size"] = NEEDS_CHECKSUM, TCP_OVER_IPV4, SEGMENT_BYTES
    header["header_bytes"] = ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES
    header["checksum_start"], header["checksum_offset"] = ETHERNET_BYTES + IPV4_BYTES, 16
    frame = tcp_frame(int(header["header_bytes"][0]) + SEGMENTS * SEGMENT_BYTES)

    def leave() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
            sender.setsockopt(SOL_PACKET, PACKET_VNET_HDR, struct.pack("i", 1))
            sender.bind(("a0", 0x0800))
            sender.send(header.tobytes() + frame)
            sender.send(bytes(VNET.itemsize) + tcp_frame())

    def arrived() -> int:
        with xdp_socket(mode) as opened:
            inside(bed.lab.namespace("generator"), leave)
            return opened.receive() - 1

    return inside(bed.lab.namespace("mux"), arrived)


def run() -> list[Result]:
    results = []
    with Bed() as bed:
        for length in SIZES:
            found = measured(bed, length)
            for name, ns in found.items():
                against = "AF_PACKET " + name.split()[1].removesuffix(",")
                results.append(
                    Result("af_xdp", f"{length} bytes: {name}", ns, "ns of CPU", against, ns / found[against])
                )
        results += [
            Result("af_xdp", f"frames that arrive of a super-frame of {SEGMENTS} segments, {mode}",
                   super_frames_that_arrive(bed, mode), "frames")
            for mode in MODES
        ]  # fmt: skip
    return results
