"""Which TCP connections this host has: one question to the kernel about one connection (sock_diag(7))."""

import errno
import os
import socket
import struct

from lbmux.addresses import FAMILIES, Address

NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST = 4, 20, 1
HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence, port."""
REQUEST = struct.Struct("=BBBxI2s2s16s16sIII")
"""struct inet_diag_req_v2: family, protocol, states; then the connection, ports and addresses in network byte order."""
ALL_STATES, ANY_COOKIE, LISTEN = 0xFFFFFFFF, 0xFFFFFFFF, 10
STATE_AT = HEADER.size + 1
ANSWER_BYTES = 4096


class Connections:
    """Those of the network namespace that it is made in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
        self._socket.settimeout(1)

    def __enter__(self) -> "Connections":
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def has(self, local: Address, local_port: int, remote: Address, remote_port: int) -> bool:
        """Whether there is such a connection, in any state but LISTEN.  OSError where the kernel does not say."""
        body = REQUEST.pack(
            FAMILIES[local.version], socket.IPPROTO_TCP, 0, ALL_STATES,
            local_port.to_bytes(2, "big"), remote_port.to_bytes(2, "big"), local.packed, remote.packed,
            0, ANY_COOKIE, ANY_COOKIE,
        )  # fmt: skip
        self._socket.send(HEADER.pack(HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0) + body)
        answer = self._socket.recv(ANSWER_BYTES)
        kind = HEADER.unpack_from(answer)[1]
        if kind == SOCK_DIAG_BY_FAMILY:
            return answer[STATE_AT] != LISTEN
        code = -struct.unpack_from("=i", answer, HEADER.size)[0]
        if code == errno.ENOENT:
            return False
        raise OSError(code, os.strerror(code))
