"""The connections of this host, from sock_diag(7): one connection, those of a service, or all.

Connected UDP sockets count as connections too.
"""

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import FAMILIES, Address

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 1
HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
REQUEST = struct.Struct("=BBBxI2s2s16s16sIII")
"""struct inet_diag_req_v2: family, protocol, states; then ports and addresses in network byte order."""
ALL_STATES, ANY_COOKIE, LISTEN = 0xFFFFFFFF, 0xFFFFFFFF, 10
NLM_F_DUMP, NLMSG_ERROR, NLMSG_DONE = 0x300, 2, 3
ESTABLISHED, SYN_SENT, TIME_WAIT, CLOSE = 1, 2, 6, 7
NOT_LIVE = (TIME_WAIT, CLOSE, LISTEN)
LIVE_STATES = ALL_STATES & ~sum(1 << state for state in NOT_LIVE)
ALIGNED = 4
STATE_AT = HEADER.size + 1
SOCKET = struct.Struct("=BBBB2s2s16s16s")
"""The start of struct inet_diag_msg: family, state, timer, retransmissions; then the connection as in a request."""
NO_ADDRESS, MAPPED = bytes(16), bytes(10) + b"\xff\xff"
"""No address; the prefix of an IPv4-mapped address of an IPv6 socket."""
ANSWER_BYTES = 1 << 16
MESSAGE = np.dtype([
    ("family", "u1"), ("state", "u1"), ("timer", "u1"), ("retransmissions", "u1"), ("local_port", "u2"),
    ("remote_port", "u2"), ("local", "u1", 16), ("remote", "u1", 16),
])  # fmt: skip
"""The same layout for NumPy; ports are as loaded."""
SOCKETS = np.dtype([
    ("local", "u8", 2), ("remote", "u8", 2), ("local_port", "u2"), ("remote_port", "u2"), ("protocol", "u1"),
    ("state", "u1"),
])  # fmt: skip
"""Sockets in the data path's form: addresses as pairs (lbmux.addresses), ports as loaded."""
INFO, ATTRIBUTE, RTT_AT, RTT_END = 2, struct.Struct("=HH"), 68, 72
"""INET_DIAG_INFO and its header (length, type); where struct tcp_info has the smoothed round-trip time, in µs."""
ATTRIBUTES_AT = 72
"""The size of struct inet_diag_msg."""
RECEIVE_QUEUE, RECEIVE_QUEUE_AT = struct.Struct("=I"), 56
"""idiag_rqueue in that struct: of a listening socket the length of its accept queue."""


class Connections:
    """The connections of the network namespace in which this object was created."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
        self._socket.settimeout(1)

    def __enter__(self) -> "Connections":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def all(self) -> NDArray[Any]:
        """Return SOCKETS rows: TCP sockets that are connected, connecting or listening, and connected UDP sockets.

        Raise OSError if the kernel does not answer.
        """
        parts = [self._sockets(family, socket.IPPROTO_TCP, LIVE_STATES | 1 << LISTEN) for family in FAMILIES.values()]
        with contextlib.suppress(OSError):  # a kernel that reports only TCP
            parts += [self._sockets(family, socket.IPPROTO_UDP, 1 << ESTABLISHED) for family in FAMILIES.values()]
        return np.concatenate(parts)

    def _sockets(self, family: int, protocol: int, states: int) -> NDArray[Any]:
        self._ask(family, states, (bytes(2), bytes(2), NO_ADDRESS, NO_ADDRESS), NLM_F_DUMP, protocol)
        return self._rows(family, protocol, list(self._messages()))

    def round_trips(self) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return SOCKETS rows of the established TCP connections, and their smoothed round-trip times in ms.

        Those without a measurement are left out. Raise OSError if the kernel does not answer.
        """
        rows, times_ms = list[NDArray[Any]](), list[float]()
        for family in FAMILIES.values():
            anything = bytes(2), bytes(2), NO_ADDRESS, NO_ADDRESS
            self._ask(family, 1 << ESTABLISHED, anything, NLM_F_DUMP, extensions=1 << INFO - 1)
            known = [(message, rtt_us) for message in self._messages() if (rtt_us := _round_trip_us(message))]
            rows.append(self._rows(family, socket.IPPROTO_TCP, [message for message, _ in known]))
            times_ms += [rtt_us / 1000 for _, rtt_us in known]
        return np.concatenate(rows), np.array(times_ms)

    def accept_queues(self) -> tuple[NDArray[Any], NDArray[np.uint32]]:
        """Return SOCKETS rows of the listening TCP sockets, and how many connections wait in each one's accept queue.

        Raise OSError if the kernel does not answer.
        """
        rows, lengths = list[NDArray[Any]](), list[int]()
        for family in FAMILIES.values():
            self._ask(family, 1 << LISTEN, (bytes(2), bytes(2), NO_ADDRESS, NO_ADDRESS), NLM_F_DUMP)
            messages = list(self._messages())
            rows.append(self._rows(family, socket.IPPROTO_TCP, messages))
            lengths += [RECEIVE_QUEUE.unpack_from(message, RECEIVE_QUEUE_AT)[0] for message in messages]
        return np.concatenate(rows), np.array(lengths, np.uint32)

    def _rows(self, family: int, protocol: int, messages: list[bytes]) -> NDArray[Any]:
        answers = np.frombuffer(b"".join(message[: MESSAGE.itemsize] for message in messages), MESSAGE)
        sockets = np.zeros(len(answers), SOCKETS)
        for name in ("local_port", "remote_port", "state"):
            sockets[name] = answers[name]
        for name in ("local", "remote"):
            address = answers[name]
            if family == socket.AF_INET:
                prefix = np.broadcast_to(np.frombuffer(MAPPED, np.uint8), (len(answers), len(MAPPED)))
                address = np.concatenate([prefix, address[:, :4]], axis=1)
            sockets[name] = np.ascontiguousarray(address).view("<u8")
        sockets["protocol"] = protocol
        return sockets

    def has(self, local: Address, local_port: int, remote: Address, remote_port: int) -> bool:
        """Return whether there is a live TCP connection. Raise OSError if the kernel does not answer.

        TIME_WAIT is not live: nothing can break it, and a later connection with the same 4-tuple may be another host's.
        """
        ports = local_port.to_bytes(2, "big"), remote_port.to_bytes(2, "big")
        self._ask(FAMILIES[local.version], ALL_STATES, (*ports, local.packed, remote.packed))
        answer = self._socket.recv(ANSWER_BYTES)
        kind = HEADER.unpack_from(answer)[1]
        if kind == SOCK_DIAG_BY_FAMILY:
            return answer[STATE_AT] not in NOT_LIVE
        code = -struct.unpack_from("=i", answer, HEADER.size)[0]
        if code == errno.ENOENT:
            return False
        raise OSError(code, os.strerror(code))

    def any(self, local: Address, ports: range) -> bool:
        """Return whether there is a live connection to ``local`` at one of the ports (0: any). May raise OSError."""
        wanted = {local.packed.ljust(16, b"\0"), (MAPPED + local.packed)[-16:]}
        return any(
            at in wanted and (ports[0] == 0 or int.from_bytes(port, "big") in ports)
            for family in FAMILIES.values()
            for at, port in list(self._local_ends(family))
        )

    def _local_ends(self, family: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield local address and port of every live connection."""
        self._ask(family, LIVE_STATES, (bytes(2), bytes(2), NO_ADDRESS, NO_ADDRESS), NLM_F_DUMP)
        for message in self._messages():
            *_, port, _, address, _ = SOCKET.unpack_from(message)
            yield address, port

    def _messages(self) -> Iterator[bytes]:
        """Yield the message about each socket. Read to the end, or the next request would get the remaining answers."""
        while True:
            answer, at = self._socket.recv(ANSWER_BYTES), 0
            while at < len(answer):
                length, kind, *_ = HEADER.unpack_from(answer, at)
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", answer, at + HEADER.size)[0]
                    raise OSError(code, os.strerror(code))
                yield answer[at + HEADER.size : at + length]
                at += -(-length // ALIGNED) * ALIGNED

    def _ask(
        self, family: int, states: int, connection: tuple[bytes, bytes, bytes, bytes], flags: int = 0,
        protocol: int = socket.IPPROTO_TCP, extensions: int = 0,
    ) -> None:  # fmt: skip
        body = REQUEST.pack(family, protocol, extensions, states, *connection, 0, ANY_COOKIE, ANY_COOKIE)
        header = HEADER.pack(HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | flags, 0, 0)
        self._socket.send(header + body)


def _round_trip_us(message: bytes) -> int:
    """Return the smoothed round-trip time in a message about a socket, in µs; 0 if there is none."""
    at = ATTRIBUTES_AT
    while at + ATTRIBUTE.size <= len(message):
        length, kind = ATTRIBUTE.unpack_from(message, at)
        if kind == INFO and length >= ATTRIBUTE.size + RTT_END:
            return int.from_bytes(message[at + ATTRIBUTE.size + RTT_AT : at + ATTRIBUTE.size + RTT_END], sys.byteorder)
        at += max(ATTRIBUTE.size, -(-length // ALIGNED) * ALIGNED)
    return 0
