"""Whole IPv4 packets out through the kernel's routes: how an agent in user space lets replies go.

A raw socket with IP_HDRINCL; the kernel finds route and neighbour.  Its packets carry a mark, so that the rule
that brought a reply here does not bring it again.
"""

import socket
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.datapath.headers import ETHERNET_BYTES, ipv4
from lbmux.datapath.memory import at_address, layout, rows
from lbmux.errors import SetupError
from lbmux.frames.batch import Batch
from lbmux.frames.messages import MESSAGE, Messages, sendmmsg, vector_row
from lbmux.targets.native import compiled

SOCKADDR_IN_BYTES = 16
SOCKADDR_IN = layout(("family", "u2"), ("port", "u2"), ("address", "u4"), *((f"pad{i}", "u8") for i in range(3)))
"""struct sockaddr_in, as long as a Messages name."""
MESSAGE_BYTES = MESSAGE.itemsize
name_row = rows(SOCKADDR_IN)
MSG_DONTWAIT = socket.MSG_DONTWAIT
SEND_BUFFER_BYTES = 1 << 22


class RawSender:
    """Sends the IPv4 packets of a batch, whose frames begin with an Ethernet header."""

    def __init__(self, mark: int, capacity: int) -> None:
        try:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        except PermissionError as error:
            raise SetupError("raw socket", str(error), "needs CAP_NET_RAW: run as root") from error
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._messages = Messages(capacity, SOCKADDR_IN_BYTES)
        self._messages.names[:, 0] = socket.AF_INET

    def __enter__(self) -> "RawSender":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def send(self, batch: Batch, below: int) -> int:
        """Send the frames whose verdict is below ``below``; how many the kernel took."""
        vectors, names, messages = self._messages.vectors, self._messages.names, self._messages.messages
        return int(
            _send(
                self._socket.fileno(), batch.address, batch.length, batch.verdict, batch.count, below,
                _address(vectors), _address(names), _address(messages),
            )
        )  # fmt: skip

    def close(self) -> None:
        self._socket.close()


def _address(array: NDArray[Any]) -> np.uint64:
    return np.uint64(array.ctypes.data)


@compiled
def _send(descriptor, address, length, verdict, count, below, vectors, names, messages):  # type: ignore[no-untyped-def]
    wanted = 0
    for index in range(count):
        if verdict[index] < below and length[index] > ETHERNET_BYTES:
            vector = vector_row(at_address(vectors), wanted)
            vector.base, vector.length = address[index] + np.uint64(ETHERNET_BYTES), length[index] - ETHERNET_BYTES
            destination = ipv4(at_address(address[index]), ETHERNET_BYTES).destination
            name_row(at_address(names), wanted).address = destination
            wanted += 1
    tried, sent = 0, 0
    while tried < wanted:
        first = at_address(messages + np.uint64(MESSAGE_BYTES * tried))
        taken = sendmmsg(descriptor, first, wanted - tried, MSG_DONTWAIT)
        sent += max(taken, 0)
        tried += max(taken, 1)  # what the kernel refuses (no route, too big, no buffer) is passed over
    return sent
