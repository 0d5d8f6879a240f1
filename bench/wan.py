"""The lab's wide-area node: the difference between requested and measured delays, in both directions at once."""

import socket
import struct
import time

import numpy as np
from numpy.typing import NDArray

from bench.report import Result
from lbmux.lab.lab import Lab
from lbmux.lab.systems.wan import joined, wan
from lbmux.lab.topology import Node, Port, Topology

PPS, SECONDS, DELAY_MS = 10_000, 2.0, 20.0
KIND, SO_TIMESTAMPNS, SO_RCVBUFFORCE = 0x88B5, 35, 33
"""The EtherType for experiments (IEEE 802)."""
NAMES = ("a", "b")


def run() -> list[Result]:
    ports = [Port(name, "eth0", f"10.9.0.{n}/24") for n, name in enumerate(NAMES, 1)]
    node = wan("wan", {"a": "to-a", "b": "to-b"}, f"a>b:{DELAY_MS}")
    nodes = (*(Node(name, "host") for name in NAMES), node)
    lab = Lab(Topology("wan", nodes, joined(*ports, "wan"), {"services": []}), "benchwan", "auto")
    lab.down()
    try:
        lab.up()
        errors = _errors_ms([lab.inside(name, _opened) for name in NAMES])
    finally:
        lab.down()
    name = f"{PPS} frames/s each way"
    return [
        Result("wan", f"{name}: median error", float(np.median(errors)), "ms", goal="< 0.2"),
        Result("wan", f"{name}: 99th percentile", float(np.percentile(errors, 99)), "ms", goal="< 1"),
    ]


def _opened() -> socket.socket:
    """Open a packet socket that has the kernel's time of each frame."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(KIND))
    opened.bind(("eth0", KIND))
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
    opened.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return opened


def _errors_ms(sockets: list[socket.socket]) -> NDArray[np.float64]:
    """Send at the rate in both directions; return the errors of the delays."""
    heads = [b"\xff" * 6 + bytes([2, 0, 0, 0, 0, n]) + struct.pack("!H", KIND) for n in range(2)]
    begin, count = time.monotonic_ns(), int(PPS * SECONDS)
    for number in range(count):
        while time.monotonic_ns() - begin < number * 1e9 / PPS:
            pass
        for opened, head in zip(sockets, heads, strict=True):
            opened.send(head + struct.pack("!Q", time.time_ns()) + bytes(100))
    delays_ns = []
    for opened in sockets:
        opened.settimeout(1)
        for _ in range(count):
            frame, ancillary, _, _ = opened.recvmsg(400, 100)
            seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
            delays_ns.append(seconds * 10**9 + nanoseconds - struct.unpack("!Q", frame[14:22])[0])
        opened.close()
    return np.array(delays_ns) / 1e6 - DELAY_MS
