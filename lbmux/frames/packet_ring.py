"""The AF_PACKET driver: receives from a ring that the kernel fills, and sends frames from the ring with sendmmsg(2).

The ring leaves headroom before each frame, so a frame is rewritten in place and never copied in user space.
TPACKET_V2 gives the lower latency: V3 takes about a fifth less CPU time per frame, but delivers frames in blocks, which
costs a time-out of a millisecond at light load. sendmmsg is simpler: a transmit ring needs a copy in user space and a
way to wait for a free slot, and neither was clearly faster in CPU time per frame (see bench/rings.py).

A super-frame, which a sender on this machine leaves to a device to segment, does not fit a slot. The kernel queues it
whole beside the ring (PACKET_COPY_THRESH), and the driver segments it as it reads it (frames.super_frames).
"""

import fcntl
import logging
import mmap
import os
import select
import socket
import struct
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from lbmux.codegen.compiled import compiled
from lbmux.datapath.context import CUT, UNFINISHED_CHECKSUM
from lbmux.datapath.headers import TYPE_VLAN
from lbmux.datapath.memory import Pointer, at_address, header, int64, layout, rows, step, swap16, u64, unlikely
from lbmux.datapath.verdicts import PASSES, Verdict
from lbmux.errors import SetupError
from lbmux.frames.batch import HEADROOM_BYTES, Batch
from lbmux.frames.memory_fences import acquire, release
from lbmux.frames.sendmmsg import MESSAGE, Messages, sendmmsg, vector_row
from lbmux.frames.socket_filters import Line, attach
from lbmux.frames.super_frames import (
    ARENA_BYTES,
    SUPER,
    VNET_BYTES,
    WHOLE_BYTES,
    cut,
    keep,
    memcpy,
    open_super,
    super_row,
    vnet_row,
)
from lbmux.wire.header_layouts import TAG_BYTES

log = logging.getLogger(__name__)

HEADER = layout(
    ("status", "u4"), ("length", "u4"), ("captured", "u4"), ("mac", "u2"), ("net", "u2"), ("seconds", "u4"),
    ("nanoseconds", "u4"), ("tag", "u2"), ("tag_type", "u2"), ("pad", "u4"),
)  # fmt: skip
"""struct tpacket2_hdr"""
header_row = rows(HEADER)

ETH_P_ALL, SOL_PACKET = 3, 263
PACKET_RX_RING, PACKET_STATISTICS, PACKET_COPY_THRESH, PACKET_VERSION, PACKET_RESERVE = 5, 6, 7, 10, 12
PACKET_VNET_HDR, PACKET_QDISC_BYPASS, PACKET_IGNORE_OUTGOING = 15, 20, 23
SO_RCVBUFFORCE = 33
TPACKET_V2 = 1
SIOCGIFMTU = 0x8921
STATUS_USER, STATUS_COPY, STATUS_UNFINISHED, STATUS_TAGGED, STATUS_TAG_TYPE = 1 << 0, 1 << 1, 1 << 3, 1 << 4, 1 << 6

SOCKADDR_LL_BYTES = 20
SOCKADDR_LL = layout(
    ("family", "u2"), ("protocol", "u2"), ("interface", "i4"), ("pad0", "u8"), ("pad1", "u8"), ("frame", "u8")
)
"""struct sockaddr_ll, padded to the length of a Messages name. ``frame`` (the batch index) follows the kernel part."""
name_row = rows(SOCKADDR_LL)

FRAMES = 4096
SEND_BUFFER_BYTES, RECEIVE_BUFFER_BYTES = 8 << 20, 16 << 20
RESERVE_BYTES = HEADROOM_BYTES + 16 - VNET_BYTES
"""The bytes that the kernel leaves before virtio_net_hdr and frame, so that the IP header is aligned to 16 bytes."""
WHOLE_AT = HEADROOM_BYTES + 16
"""The offset of a super-frame's virtio_net_hdr in its buffer."""
MOST_FRAMES = 4096
TRIES = 3
MESSAGE_BYTES = MESSAGE.itemsize
UNSENT, MSG_DONTWAIT = int(Verdict.UNSENT), int(socket.MSG_DONTWAIT)
recv = types.ExternalFunction("recv", types.int64(types.int32, Pointer, types.uint64, types.int32))


class PacketRing:
    """One interface, opened for whole frames. Raise SetupError if that fails."""

    def __init__(self, interface: str, frames: int = FRAMES, only: tuple[Line, ...] | None = None) -> None:
        """``only``: a socket_filters program; only the frames that it accepts are read."""
        self.interface = interface
        self.index = _interface_index(interface)
        self._socket, self._out = _packet_socket(), _packet_socket()
        try:
            stride = _stride(self._socket, interface)
            block = max(mmap.PAGESIZE, stride)
            self.frames, self._stride = frames * block // stride, stride
            self._set_up(block, frames, only)
        except OSError as error:
            self.close()
            hint = "a packet ring needs CAP_NET_RAW, free memory and an Ethernet interface"
            raise SetupError(f"interface {interface}", error.strerror or str(error), hint) from error
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._next = 0
        self._super = np.zeros(1, SUPER)
        self._whole, self._arena = np.zeros(WHOLE_BYTES, np.uint8), np.zeros(ARENA_BYTES, np.uint8)
        self._arrived, self._wire = np.zeros(MOST_FRAMES, np.int64), np.zeros(MOST_FRAMES, np.uint32)
        self._messages = Messages(MOST_FRAMES, SOCKADDR_LL_BYTES)
        names = self._messages.names.view(SOCKADDR_LL)
        names["family"], names["protocol"] = socket.AF_PACKET, socket.htons(0x0800)
        self.unsent = 0
        """Frames that the kernel refused to send."""
        self.outages = 0
        """How often the interface went down or disappeared."""
        self._dropped = 0

    def _set_up(self, block: int, blocks: int, only: tuple[Line, ...] | None) -> None:
        one = struct.pack("i", 1)
        sock = self._socket
        sock.setsockopt(SOL_PACKET, PACKET_VERSION, struct.pack("i", TPACKET_V2))
        sock.setsockopt(SOL_PACKET, PACKET_RESERVE, struct.pack("I", RESERVE_BYTES))
        sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, one)
        sock.setsockopt(SOL_PACKET, PACKET_COPY_THRESH, one)
        sock.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, one)
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        except PermissionError:  # without CAP_NET_ADMIN: as much as net.core.rmem_max allows
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self._out.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, one)
        self._out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if only is not None:
            attach(sock, only)
        sock.setsockopt(SOL_PACKET, PACKET_RX_RING, struct.pack("IIII", block, blocks, self._stride, self.frames))
        self._memory = mmap.mmap(sock.fileno(), block * blocks, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._ring = np.frombuffer(self._memory, np.uint8)
        sock.bind((self.interface, ETH_P_ALL))

    def __enter__(self) -> "PacketRing":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def restrict(self, only: tuple[Line, ...]) -> None:
        """Read only the frames that this program accepts, from now on."""
        attach(self._socket, only)

    def rebind(self) -> None:
        """Bind to the recreated interface of this name. Raise SetupError or OSError if that fails."""
        index = _interface_index(self.interface)
        self._socket.bind((self.interface, ETH_P_ALL))
        self.index = index

    def fileno(self) -> int:
        """Return the descriptor, which is readable when frames are waiting."""
        return self._socket.fileno()

    def waits(self) -> bool:
        """Return whether there is something to read."""
        return bool(self._poll.poll(0))

    def receive(self, batch: Batch) -> int:
        """Fill the batch with waiting frames. Return how many. They stay in the ring until ``release``."""
        batch.count = int(
            _receive(
                _address(self._ring), self._stride, self.frames, self._next, self.index, self._socket.fileno(),
                _address(self._super), _address(self._whole), _address(self._arena), batch.address, batch.length,
                batch.flags, batch.interface, self._arrived, self._wire,
                min(batch.capacity, self.frames, MOST_FRAMES),
            )
        )  # fmt: skip
        if batch.count == 0:
            self._clear_error()
        return batch.count

    def arrivals(self, count: int) -> list[tuple[int, int]]:
        """Return (arrival in ns since 1970, bytes on the wire) of the first frames of the last ``receive``."""
        return list(zip(self._arrived[:count].tolist(), self._wire[:count].tolist(), strict=True))

    @property
    def super_frames(self) -> int:
        """How many super-frames have been segmented since the start."""
        return int(self._super["split"][0])

    @property
    def super_frames_lost(self) -> int:
        """How many super-frames arrived too fast or could not be parsed. What is left of each still gets a verdict."""
        return int(self._super["lost"][0])

    def _clear_error(self) -> None:
        """Clear the error of an interface that went down: until it is read, the descriptor stays readable."""
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self.outages += 1
            log.warning("interface %s: %s", self.interface, os.strerror(number).lower())

    def send(self, batch: Batch) -> int:
        """Send the frames with a sending verdict. Return how many. Those that the kernel refused become UNSENT."""
        messages = self._messages
        sent, unsent = (
            _send(
                self._out.fileno(), self.index, batch.address, batch.length, batch.verdict, batch.interface,
                batch.count, _address(messages.vectors), _address(messages.names), _address(messages.messages),
            )
        )  # fmt: skip
        self.unsent += int(unsent)
        return int(sent)

    def release(self, batch: Batch) -> None:
        """Return the frames of the last ``receive`` to the kernel."""
        taken = int(self._super["taken"][0])
        _release(_address(self._ring), self._stride, self.frames, self._next, taken)
        self._next = (self._next + taken) % self.frames
        self._super["taken"] = 0

    def dropped(self) -> int:
        """Return how many frames were lost because the ring was full, since the start."""
        _, drops = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self._dropped += drops
        return self._dropped

    def close(self) -> None:
        self._socket.close()
        self._out.close()


def _packet_socket() -> socket.socket:
    try:
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except PermissionError as error:
        raise SetupError("packet socket", "not permitted", "needs CAP_NET_RAW: run as root") from error


def _interface_index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise SetupError(f"interface {interface}", "there is none of that name", "`ip link` lists them") from error


def _stride(sock: socket.socket, interface: str) -> int:
    """Return the size of a ring slot in bytes: MTU, headers and headroom, rounded up to a power of two."""
    mtu: int = struct.unpack("16xi", fcntl.ioctl(sock, SIOCGIFMTU, struct.pack("16si", interface.encode(), 0)))[0]
    return 1 << (mtu + HEADER.itemsize + RESERVE_BYTES + VNET_BYTES + 64 - 1).bit_length()


def _address(array: NDArray[Any]) -> np.uint64:
    return np.uint64(array.ctypes.data)


macs_row = header(layout(("first", "u8"), ("second", "u4")))
tag_row = header(layout(("type", "u2"), ("control", "u2")))


@step
def _restore_tag(start, head):  # type: ignore[no-untyped-def]
    """Restore the VLAN tag that the kernel removed: the MAC addresses move forward to make space for it."""
    macs = macs_row(start, TAG_BYTES)
    first, second = macs.first, macs.second
    macs = macs_row(start, 0)
    macs.first, macs.second = first, second
    tag = tag_row(start, 12)
    tag.type = swap16(head.tag_type) if (head.status & STATUS_TAG_TYPE) != 0 else TYPE_VLAN
    tag.control = swap16(head.tag)


@compiled
def _receive(  # type: ignore[no-untyped-def]  # noqa: C901 -- compiled: the loop over the ring
    ring, stride, frames, first, index, descriptor, state, whole, arena,
    address, length, flags, interface, arrived, wire, capacity,
):  # fmt: skip
    record = super_row(at_address(state), 0)
    record.used = record.taken = 0
    count, place = 0, first
    while count < capacity:
        head = header_row(at_address(ring + u64(place * stride)), 0)
        status = head.status
        if (status & STATUS_USER) == 0:
            break
        acquire()
        start, captured = ring + u64(place * stride) + u64(head.mac), int64(head.captured)
        came, mark = int64(head.seconds) * 1_000_000_000 + int64(head.nanoseconds), 0
        kind = vnet_row(at_address(start - u64(VNET_BYTES)), 0).kind
        if unlikely(kind != 0 or (status & STATUS_COPY) != 0):
            if record.size == 0:
                start, captured = _whole_frame(record, descriptor, whole, arena, start, captured, head, kind)
            if record.size != 0:
                while record.size != 0 and count < capacity:
                    address[count], length[count] = cut(record, arena)
                    if length[count] == 0:
                        break
                    arrived[count], wire[count], flags[count], interface[count] = came, length[count], 0, index
                    count += 1
                if record.size != 0:  # its place is still taken, so that the descriptor stays readable
                    break
                place, record.taken = place + 1 if place + 1 < frames else 0, record.taken + 1
                continue
        if (status & STATUS_UNFINISHED) != 0:
            mark |= UNFINISHED_CHECKSUM
        if captured < int64(head.length):
            mark |= CUT
        wire[count] = head.length
        if (status & STATUS_TAGGED) != 0:
            start -= u64(TAG_BYTES)
            captured += TAG_BYTES
            wire[count] += TAG_BYTES
            _restore_tag(at_address(start), head)
        address[count], length[count], arrived[count] = start, captured, came
        flags[count] = mark
        interface[count] = index
        count += 1
        record.taken += 1
        place += 1
        if place == frames:
            place = 0
    return count


@step
def _whole_frame(record, descriptor, whole, arena, start, captured, head, kind):  # type: ignore[no-untyped-def]
    """Open a super-frame for segmentation, or pass another large frame unchanged. Return (address, bytes present)."""
    begin = whole + u64(WHOLE_AT)
    frame, wanted = begin + u64(VNET_BYTES), int64(head.length)
    if (head.status & STATUS_COPY) != 0:
        got = int64(recv(descriptor, at_address(begin), WHOLE_BYTES - WHOLE_AT, MSG_DONTWAIT))
        is_whole = got == wanted + VNET_BYTES
    else:
        memcpy(at_address(begin), at_address(start - u64(VNET_BYTES)), u64(captured + VNET_BYTES))
        is_whole = captured == wanted
    if not is_whole:
        record.lost += 1
        return start, captured
    vnet = vnet_row(at_address(begin), 0)
    mark, size, checksum_start, more = vnet.flags, int64(vnet.size), int64(vnet.checksum_start), int64(0)
    if kind == 0:  # longer than a place, as its interface's MTU was raised
        kept = keep(record, arena, frame, wanted)
        return (kept, wanted) if kept != u64(0) else (start, captured)
    if (head.status & STATUS_TAGGED) != 0:
        more = int64(TAG_BYTES)
        _restore_tag(at_address(frame - u64(TAG_BYTES)), head)
    if open_super(record, frame - u64(more), wanted + more, mark, kind, size, checksum_start + more):
        record.split += 1
        return frame, wanted
    record.lost += 1
    return start, captured


@compiled
def _release(ring, stride, frames, first, count):  # type: ignore[no-untyped-def]
    release()
    place = first
    for _ in range(count):
        header_row(at_address(ring + u64(place * stride)), 0).status = 0
        place += 1
        if place == frames:
            place = 0


@compiled
def _send(descriptor, own, address, length, verdict, interface, count, vectors, names, messages):  # type: ignore[no-untyped-def]
    wanted = int64(0)
    for index in range(count):
        if verdict[index] < PASSES:
            vector = vector_row(at_address(vectors), wanted)
            vector.base, vector.length = address[index], length[index]
            name = name_row(at_address(names), wanted)
            name.interface, name.frame = interface[index] if interface[index] != 0 else own, index
            wanted += 1
    tried, sent, tries = int64(0), int64(0), 0
    while tried < wanted:
        taken = sendmmsg(descriptor, at_address(messages + u64(MESSAGE_BYTES * tried)), wanted - tried, MSG_DONTWAIT)
        if taken > 0:
            sent, tried, tries = sent + taken, tried + taken, 0
        else:
            tries += 1
            if tries == TRIES:
                verdict[name_row(at_address(names), tried).frame] = UNSENT
                tried, tries = tried + 1, 0
    return sent, wanted - sent
