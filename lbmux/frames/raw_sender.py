"""Sends whole IP packets through the kernel's routes: how an agent in user space sends replies.

It uses a raw socket of each family with IP_HDRINCL; the kernel resolves route and neighbour. The packets carry a mark,
so that the rule that routed a reply to the agent does not match again.
"""

import contextlib
import socket

import numpy as np

from lbmux.addresses import Address
from lbmux.codegen.compiled import address_of, compiled
from lbmux.datapath.headers import TYPE_IPV4, TYPE_IPV6, ethernet, ipv4, ipv6
from lbmux.datapath.memory import at_address, layout, rows
from lbmux.errors import SetupError
from lbmux.frames.batch import Batch
from lbmux.frames.sendmmsg import MESSAGE, Messages, sendmmsg, vector_row
from lbmux.wire.header_layouts import ETHERNET_BYTES

SOCKADDR_IN = layout(("family", "u2"), ("port", "u2"), ("address", "u4"), *((f"pad{i}", "u8") for i in range(3)))
SOCKADDR_IN6 = layout(
    ("family", "u2"), ("port", "u2"), ("flow", "u4"), ("high", "u8"), ("low", "u8"), ("scope", "u4"), ("pad", "u4")
)
"""struct sockaddr_in and sockaddr_in6, padded to the length of a Messages name."""
SOCKADDR_IN_BYTES, SOCKADDR_IN6_BYTES = 16, 28
MESSAGE_BYTES = MESSAGE.itemsize
name_row, name6_row = rows(SOCKADDR_IN), rows(SOCKADDR_IN6)
MSG_DONTWAIT = socket.MSG_DONTWAIT
SEND_BUFFER_BYTES = 1 << 22
IP_MTU, IPV6_MTU, ANY_PORT = 14, 24, 9
MTU_OPTIONS = {
    4: (socket.AF_INET, socket.IPPROTO_IP, IP_MTU),
    6: (socket.AF_INET6, socket.IPPROTO_IPV6, IPV6_MTU),
}
"""Family, level and option (linux/in.h, linux/in6.h) that read a connected socket's path MTU, by IP version."""


class RawSender:
    """Sends the IP packets in a batch of Ethernet frames."""

    def __init__(self, mark: int, capacity: int) -> None:
        self._mark = mark
        with contextlib.ExitStack() as stack:
            ipv4_socket = stack.enter_context(_raw_socket(socket.AF_INET, mark))
            self._sockets = [(ipv4_socket, TYPE_IPV4, _messages(capacity, socket.AF_INET, SOCKADDR_IN_BYTES))]
            with contextlib.suppress(OSError):  # a kernel without IPv6
                ipv6_socket = stack.enter_context(_raw_socket(socket.AF_INET6, mark))
                self._sockets.append((ipv6_socket, TYPE_IPV6, _messages(capacity, socket.AF_INET6, SOCKADDR_IN6_BYTES)))
            self._open = stack.pop_all()

    def __enter__(self) -> "RawSender":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def send(self, batch: Batch, below: int) -> int:
        """Send the frames whose verdict is below ``below``. Return how many the kernel accepted."""
        return sum(
            _send(
                sock.fileno(), kind, batch.address, batch.length, batch.verdict, batch.count, below,
                address_of(messages.vectors), address_of(messages.names), address_of(messages.messages),
            )
            for sock, kind, messages in self._sockets
        )  # fmt: skip

    def path_mtu(self, destination: Address) -> int:
        """Return the bytes of the longest packet to a destination, by the kernel's routes and the ICMP errors it got.

        Raise OSError if no route leads there.
        """
        family, level, option = MTU_OPTIONS[destination.version]
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
            sock.connect((str(destination), ANY_PORT))
            return sock.getsockopt(level, option)

    def close(self) -> None:
        self._open.close()


def _raw_socket(family: int, mark: int) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    except PermissionError as error:
        raise SetupError("raw socket", str(error), "needs CAP_NET_RAW: run as root") from error
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return sock


def _messages(capacity: int, family: int, name_bytes: int) -> Messages:
    messages = Messages(capacity, name_bytes)
    messages.names[:, 0] = family
    return messages


@compiled
def _send(descriptor, kind, address, length, verdict, count, below, vectors, names, messages):  # type: ignore[no-untyped-def]
    wanted = 0
    for index in range(count):
        frame = at_address(address[index])
        if verdict[index] < below and length[index] > ETHERNET_BYTES and ethernet(frame, 0).type == kind:
            vector = vector_row(at_address(vectors), wanted)
            vector.base, vector.length = address[index] + np.uint64(ETHERNET_BYTES), length[index] - ETHERNET_BYTES
            if kind == TYPE_IPV4:
                name_row(at_address(names), wanted).address = ipv4(frame, ETHERNET_BYTES).destination
            else:
                name, ip6 = name6_row(at_address(names), wanted), ipv6(frame, ETHERNET_BYTES)
                name.high, name.low = ip6.destination_high, ip6.destination_low
            wanted += 1
    tried, sent = 0, 0
    while tried < wanted:
        first = at_address(messages + np.uint64(MESSAGE_BYTES * tried))
        taken = sendmmsg(descriptor, first, wanted - tried, MSG_DONTWAIT)
        sent += max(taken, 0)
        tried += max(taken, 1)  # skip a packet that the kernel refuses (no route, too big, no buffer)
    return sent
