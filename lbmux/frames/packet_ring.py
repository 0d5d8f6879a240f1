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

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import address_of
from lbmux.errors import SetupError
from lbmux.frames.batch import HEADROOM_BYTES, Batch
from lbmux.frames.ring_slots import HEADER, SOCKADDR_LL, SOCKADDR_LL_BYTES, receive_frames, release_frames, send_frames
from lbmux.frames.sendmmsg import Messages
from lbmux.frames.socket_filters import Line, attach
from lbmux.frames.super_frames import (
    ARENA_BYTES,
    SUPER,
    VNET_BYTES,
    WHOLE_BYTES,
)
from lbmux.wire.numbers import ETHERTYPE_IPV4

log = logging.getLogger(__name__)

ETH_P_ALL, SOL_PACKET = 3, 263
PACKET_RX_RING, PACKET_STATISTICS, PACKET_COPY_THRESH, PACKET_VERSION, PACKET_RESERVE = 5, 6, 7, 10, 12
PACKET_VNET_HDR, PACKET_QDISC_BYPASS, PACKET_IGNORE_OUTGOING = 15, 20, 23
SO_RCVBUFFORCE = 33
TPACKET_V2 = 1
SIOCGIFMTU = 0x8921

FRAMES = 4096
SEND_BUFFER_BYTES, RECEIVE_BUFFER_BYTES = 8 << 20, 16 << 20
RESERVE_BYTES = HEADROOM_BYTES + 16 - VNET_BYTES
"""The bytes that the kernel leaves before virtio_net_hdr and frame, so that the IP header is aligned to 16 bytes."""
MOST_FRAMES = 4096


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
        names["family"], names["protocol"] = socket.AF_PACKET, socket.htons(ETHERTYPE_IPV4)
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
            receive_frames(
                address_of(self._ring), self._stride, self.frames, self._next, self.index, self._socket.fileno(),
                address_of(self._super), address_of(self._whole), address_of(self._arena), batch.address, batch.length,
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
    def arrival_ns(self) -> NDArray[np.int64]:
        """When the frames of the last ``receive`` arrived, in ns since 1970; valid until the next one."""
        return self._arrived

    @property
    def super_frames(self) -> int:
        """How many super-frames have been segmented since the start."""
        return int(self._super["split"][0])

    @property
    def super_frames_lost(self) -> int:
        """How many super-frames arrived too fast or could not be parsed. The part in the ring still gets a verdict."""
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
            send_frames(
                self._out.fileno(), self.index, batch.address, batch.length, batch.verdict, batch.interface,
                batch.count, address_of(messages.vectors), address_of(messages.names), address_of(messages.messages),
            )
        )  # fmt: skip
        self.unsent += int(unsent)
        return int(sent)

    def release(self, batch: Batch) -> None:
        """Return the frames of the last ``receive`` to the kernel."""
        taken = int(self._super["taken"][0])
        release_frames(address_of(self._ring), self._stride, self.frames, self._next, taken)
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
        raise SetupError(f"interface {interface}", "not found", "`ip link` lists them") from error


def _stride(sock: socket.socket, interface: str) -> int:
    """Return the size of a ring slot in bytes: MTU, headers and headroom, rounded up to a power of two."""
    mtu: int = struct.unpack("16xi", fcntl.ioctl(sock, SIOCGIFMTU, struct.pack("16si", interface.encode(), 0)))[0]
    return 1 << (mtu + HEADER.itemsize + RESERVE_BYTES + VNET_BYTES + 64 - 1).bit_length()
