"""The kernel's reason for refusing an XDP program on an interface.

bpf(2) gives no reason for a link. rtnetlink(7) gives one in its extended acknowledgment, so this module repeats the
request there.
"""

import socket
import struct

SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
RTM_SETLINK, NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 19, 1, 4, 2
IFLA_XDP, IFLA_XDP_FD, IFLA_XDP_FLAGS, NESTED = 43, 1, 3, 1 << 15
ONLY_IF_NONE, NO_PROGRAM = 1, -1
NLMSGERR_ATTR_MSG, ATTRIBUTES_AT = 1, 36
ANSWER_BYTES = 8192


def reason(program: int, interface_index: int, mode: int) -> str:
    """Return why the kernel refuses to attach a program in a mode, or an empty string if it says nothing or accepts."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(1)
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
            sock.setsockopt(SOL_NETLINK, option, 1)
        sock.send(_request(program, interface_index, mode | ONLY_IF_NONE))
        answer = sock.recv(ANSWER_BYTES)
        if struct.unpack_from("=i", answer, 16)[0] == 0:
            sock.send(_request(NO_PROGRAM, interface_index, mode))
            sock.recv(ANSWER_BYTES)
    return _message(answer)


def _request(program: int, interface_index: int, flags: int) -> bytes:
    inner = struct.pack("=HHiHHI", 8, IFLA_XDP_FD, program, 8, IFLA_XDP_FLAGS, flags)
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, interface_index, 0, 0)
    body += struct.pack("=HH", 4 + len(inner), IFLA_XDP | NESTED) + inner
    return struct.pack("=IHHII", 16 + len(body), RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, 1, 0) + body


def _message(answer: bytes) -> str:
    """Return the message in an extended acknowledgment that does not repeat the request."""
    at = ATTRIBUTES_AT
    while at + 4 <= len(answer):
        length, kind = struct.unpack_from("=HH", answer, at)
        if length < 4:
            break
        if kind == NLMSGERR_ATTR_MSG:
            return answer[at + 4 : at + length].rstrip(b"\0").decode(errors="replace")
        at += -(-length // 4) * 4
    return ""
