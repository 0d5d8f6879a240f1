"""A TUN device, through which an agent in user space exchanges packets with the local stack.

The data path expects an Ethernet header, so this driver adds an empty one and removes it again.
"""

import errno
import fcntl
import os
import struct

import numpy as np
from numba import types

from lbmux.codegen.compiled import address_of, compiled
from lbmux.datapath.headers import TYPE_IPV4, TYPE_IPV6, ethernet, ipv4
from lbmux.datapath.memory import Pointer, at_address, u64
from lbmux.errors import SetupError
from lbmux.frames.batch import HEADROOM_BYTES, Batch
from lbmux.wire.header_layouts import ETHERNET_BYTES

TUNSETIFF, TUNSETPERSIST, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x400454CB, 0x0001, 0x1000
STRIDE_BYTES = 65536 + 256

read = types.ExternalFunction("read", types.int64(types.int32, Pointer, types.uint64))
write = types.ExternalFunction("write", types.int64(types.int32, Pointer, types.uint64))


class Tun:
    """One TUN device. It ends with the process unless ``stay`` is called. Raise SetupError if it cannot be created."""

    def __init__(self, name: str, capacity: int) -> None:
        try:
            self._descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            hint = "its mode should be 0666, as udev makes it: CAP_NET_ADMIN is what protects it"
            raise SetupError("/dev/net/tun", error.strerror or str(error), hint) from error
        try:
            request = struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI)
            answer = fcntl.ioctl(self._descriptor, TUNSETIFF, request)
        except OSError as error:
            os.close(self._descriptor)
            if error.errno == errno.EBUSY:
                raise SetupError(f"TUN device {name}", "another agent uses it", "stop that agent first") from error
            hint = "needs CAP_NET_ADMIN and a name that no other interface has"
            raise SetupError(f"TUN device {name}", error.strerror or str(error), hint) from error
        self.name = answer[:16].rstrip(b"\0").decode()
        self._arena = np.zeros((capacity, STRIDE_BYTES), np.uint8)

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
        return int(_send(self._descriptor, batch.address, batch.length, batch.verdict, batch.count, least, below))

    def close(self) -> None:
        os.close(self._descriptor)


@compiled
def _receive(descriptor, arena, address, length, flags, capacity):  # type: ignore[no-untyped-def]
    count = 0
    while count < capacity:
        start = arena + u64(count * STRIDE_BYTES + HEADROOM_BYTES)
        received = read(
            descriptor, at_address(start + u64(ETHERNET_BYTES)), STRIDE_BYTES - HEADROOM_BYTES - ETHERNET_BYTES
        )
        if received <= 0:
            break
        is_ipv6 = (ipv4(at_address(start), ETHERNET_BYTES).version_ihl >> 4) == 6
        ethernet(at_address(start), 0).type = TYPE_IPV6 if is_ipv6 else TYPE_IPV4
        address[count], length[count], flags[count] = start, received + ETHERNET_BYTES, 0
        count += 1
    return count


@compiled
def _send(descriptor, address, length, verdict, count, least, below):  # type: ignore[no-untyped-def]
    taken = 0
    for index in range(count):
        if least <= verdict[index] < below:
            packet = at_address(address[index] + u64(ETHERNET_BYTES))
            taken += write(descriptor, packet, length[index] - ETHERNET_BYTES) > 0
    return taken
