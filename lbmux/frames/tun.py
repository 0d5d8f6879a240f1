"""A TUN device, through which an agent in user space exchanges packets with the local stack.

The data path expects an Ethernet header, so this driver adds an empty one and removes it again. Consecutive segments of
a TCP connection go to the stack as one packet (frames.merged_segments): a virtio_net_hdr before each packet says how it
is made of them.
"""

import errno
import fcntl
import os
import struct

import numpy as np
from numba import types

from lbmux.codegen.compiled import address_of, compiled
from lbmux.datapath.headers import TYPE_IPV4, TYPE_IPV6, ethernet, ipv4
from lbmux.datapath.memory import Pointer, at_address, int64, step, u64
from lbmux.errors import SetupError
from lbmux.frames.batch import HEADROOM_BYTES, Batch
from lbmux.frames.merged_segments import MOST_SEGMENTS, run_of, write_headers, write_vnet
from lbmux.frames.sendmmsg import VECTOR, vector_row
from lbmux.frames.super_frames import VNET_BYTES, vnet_row
from lbmux.wire.header_layouts import ETHERNET_BYTES

TUNSETIFF, TUNSETPERSIST, IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x400454CB, 0x0001, 0x1000, 0x4000
STRIDE_BYTES = 65536 + 256

read = types.ExternalFunction("read", types.int64(types.int32, Pointer, types.uint64))
writev = types.ExternalFunction("writev", types.int64(types.int32, Pointer, types.int32))
VNET_AT = ETHERNET_BYTES - VNET_BYTES
"""The virtio_net_hdr is in the place of the end of the Ethernet header."""
HEADER_BYTES = 256
"""The space for the headers of a merged packet, and for an empty virtio_net_hdr behind them."""


class Tun:
    """One TUN device. It ends with the process unless ``stay`` is called. Raise SetupError if it cannot be created."""

    def __init__(self, name: str, capacity: int) -> None:
        try:
            self._descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            hint = "its mode should be 0666, as udev makes it: CAP_NET_ADMIN is what protects it"
            raise SetupError("/dev/net/tun", error.strerror or str(error), hint) from error
        try:
            request = struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR)
            answer = fcntl.ioctl(self._descriptor, TUNSETIFF, request)
        except OSError as error:
            os.close(self._descriptor)
            if error.errno == errno.EBUSY:
                raise SetupError(f"TUN device {name}", "another agent uses it", "stop that agent first") from error
            hint = "needs CAP_NET_ADMIN and a name that no other interface has"
            raise SetupError(f"TUN device {name}", error.strerror or str(error), hint) from error
        self.name = answer[:16].rstrip(b"\0").decode()
        self._arena = np.zeros((capacity, STRIDE_BYTES), np.uint8)
        self._header, self._vectors = np.zeros(HEADER_BYTES + VNET_BYTES, np.uint8), np.zeros(MOST_SEGMENTS + 1, VECTOR)

    def __enter__(self) -> "Tun":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def stay(self, stays: bool) -> None:
        """Set whether the device outlives the process. Packets routed to it are then dropped, not forwarded."""
        fcntl.ioctl(self._descriptor, TUNSETPERSIST, int(stays))

    def fileno(self) -> int:
        return self._descriptor

    def receive(self, batch: Batch) -> int:
        """Fill the batch with packets that the stack sent to the device. Return how many."""
        batch.count = int(
            _receive(
                self._descriptor, address_of(self._arena), batch.address, batch.length, batch.flags, batch.capacity
            )
        )
        return batch.count

    def send(self, batch: Batch, below: int, least: int = 0) -> int:
        """Pass packets with ``least`` <= verdict < ``below`` to the stack. Return how many it accepted."""
        return int(
            _send(
                self._descriptor, address_of(self._header), address_of(self._vectors), batch.address, batch.length,
                batch.flags, batch.verdict, batch.count, least, below,
            )
        )  # fmt: skip

    def write(self, packet: bytes) -> None:
        """Pass one packet to the stack. Raise OSError if it is not accepted."""
        os.write(self._descriptor, bytes(VNET_BYTES) + packet)

    def close(self) -> None:
        os.close(self._descriptor)


@compiled
def _receive(descriptor, arena, address, length, flags, capacity):  # type: ignore[no-untyped-def]
    count = 0
    while count < capacity:
        start = arena + u64(count * STRIDE_BYTES + HEADROOM_BYTES)
        into = start + u64(VNET_AT)
        received = read(descriptor, at_address(into), STRIDE_BYTES - HEADROOM_BYTES - VNET_AT) - VNET_BYTES
        if received <= 0:
            break
        vnet_row(at_address(into), 0).flags = 0
        is_ipv6 = (ipv4(at_address(start), ETHERNET_BYTES).version_ihl >> 4) == 6
        ethernet(at_address(start), 0).type = TYPE_IPV6 if is_ipv6 else TYPE_IPV4
        address[count], length[count], flags[count] = start, received + ETHERNET_BYTES, 0
        count += 1
    return count


@step
def _write_one(descriptor, header, vectors, address, length, index):  # type: ignore[no-untyped-def]
    first, second = vector_row(at_address(vectors), 0), vector_row(at_address(vectors), 1)
    first.base, first.length = header + u64(HEADER_BYTES), VNET_BYTES
    second.base, second.length = address[index] + u64(ETHERNET_BYTES), length[index] - ETHERNET_BYTES
    return writev(descriptor, at_address(vectors), 2) > 0


@step
def _write_merged(descriptor, header, vectors, address, length, index, run, payload):  # type: ignore[no-untyped-def]
    """Write ``run`` segments, whose data begin at ``payload``, as one packet."""
    total = payload
    for number in range(run):
        vector, data_bytes = vector_row(at_address(vectors), number + 1), int64(length[index + number]) - payload
        vector.base, vector.length = address[index + number] + u64(payload), data_bytes
        total += data_bytes
    first, last = at_address(address[index]), at_address(address[index + run - 1])
    write_headers(at_address(header), first, last, payload, total)
    vnet = vnet_row(at_address(header + u64(VNET_AT)), 0)
    write_vnet(vnet, at_address(header), payload, int64(length[index]) - payload)
    vector = vector_row(at_address(vectors), 0)
    vector.base, vector.length = header + u64(VNET_AT), payload - VNET_AT
    return writev(descriptor, at_address(vectors), run + 1) > 0


@compiled
def _send(descriptor, header, vectors, address, length, flags, verdict, count, least, below):  # type: ignore[no-untyped-def]
    taken, index = 0, 0
    while index < count:
        run, payload = 1, int64(0)
        if least <= verdict[index] < below:
            run, payload = run_of(address, length, flags, verdict, index, count, least, below)
            if run > 1 and _write_merged(descriptor, header, vectors, address, length, index, run, payload):
                taken += run
            else:  # one segment, or the kernel refused them as one packet
                for number in range(run):
                    taken += _write_one(descriptor, header, vectors, address, length, index + number)
        index += run
    return taken
