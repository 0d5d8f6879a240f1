"""The wide-area node between two real namespaces, in both address families."""

import os
import socket
import struct
import time
from collections.abc import Iterator

import numpy as np
import pytest

from lbmux.cli.main import run
from lbmux.errors import SetupError
from lbmux.frames.delay_lines import Path
from lbmux.lab.lab import Lab
from lbmux.lab.systems.wan import joined, wan
from lbmux.lab.topology import IPV6_SYSCTLS, Node, Port, Topology
from lbmux.lab.wan_node import WanNode, both_ways, parse_path, parse_sites
from tests.labs import built

SO_TIMESTAMPNS, SO_RCVBUFFORCE = 35, 33
KIND = 0x88B5
"""The EtherType for experiments (IEEE 802)."""
THERE_MS, BACK_MS = 30.0, 10.0
FRAMES, PAUSE_NS = 1000, 1_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a>b:5", (("a", "b"), Path(5))),
        ("a>b:5,1.5", (("a", "b"), Path(5, 1.5))),
        ("a>b:5,1,0.01", (("a", "b"), Path(5, 1, 0.01))),
    ],
)
def test_paths(text: str, expected: object) -> None:
    assert parse_path(text) == expected


@pytest.mark.parametrize("text", ["a>b", "a:5", "a>a:5", "a>b:x", "a>b:5,6", "a>b:-1", "a>b:5,1,2", "a>b:1,1,1,1"])
def test_paths_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_path(text)


def test_the_reverse_direction_is_the_same_unless_given() -> None:
    assert both_ways({("a", "b"): Path(5)}) == {("a", "b"): Path(5), ("b", "a"): Path(5)}
    assert both_ways({("a", "b"): Path(5), ("b", "a"): Path(1)})["b", "a"] == Path(1)


@pytest.mark.parametrize("texts", [["a"], ["a="], ["a=x", "a=y"]])
def test_sites_that_are_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError):
        parse_sites(texts)


def test_a_path_to_an_unknown_site() -> None:
    with pytest.raises(SetupError, match="site c: has no interface"):
        WanNode({"a": "lo"}, {("a", "c"): Path(1)})


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["lab", "wan", "--site", "a=lo", "--path", "a>b"]) == 2
    assert "is not FROM>TO:DELAY" in capsys.readouterr().err


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Nodes a and b, 30 ms apart, and 10 ms on the way back."""
    ports = [
        Port(name, "eth0", f"10.9.0.{n}/24", more_addresses=(f"2001:db8:9::{n}/64",))
        for n, name in enumerate(("a", "b"), 1)
    ]  # fmt: skip
    nodes = [Node(name, "host", IPV6_SYSCTLS) for name in ("a", "b")]
    between = wan("wan", {"a": "to-a", "b": "to-b"}, f"a>b:{THERE_MS}", f"b>a:{BACK_MS}")
    topology = Topology("wan", (*nodes, between), joined(*ports, "wan"), {"services": []})
    with built(topology, f"wan{os.getpid()}") as lab:
        yield lab


@pytest.mark.root
@pytest.mark.parametrize("address", ["10.9.0.2", "2001:db8:9::2"])
def test_tcp_connects_after_one_round_trip(lab: Lab, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def listening() -> socket.socket:
        server = socket.create_server((address, 7000), family=family)
        return server

    def connecting() -> float:
        start = time.monotonic()
        with socket.create_connection((address, 7000), 5):
            return 1000 * (time.monotonic() - start)

    with lab.inside("b", listening):
        lab.inside("a", connecting)  # resolves the neighbour
        assert lab.inside("a", connecting) >= THERE_MS + BACK_MS


def wire(lab: Lab, node: str) -> socket.socket:
    """A packet socket that has the kernel's time of each frame."""

    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(KIND))
        sock.bind(("eth0", KIND))
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.settimeout(5)
        return sock

    return lab.inside(node, opened)


def delays_ms(sock: socket.socket) -> np.ndarray:
    """Receive all frames; return how long each took."""
    delays = []
    for _ in range(FRAMES):
        frame, ancillary, _, _ = sock.recvmsg(400, 100)
        seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
        delays.append(seconds * 10**9 + nanoseconds - struct.unpack("!Q", frame[14:22])[0])
    return np.array(delays) / 1e6


@pytest.mark.root
def test_each_direction_has_its_delay(lab: Lab) -> None:
    with wire(lab, "a") as a, wire(lab, "b") as b:
        head = [b"\xff" * 6 + bytes([2, 0, 0, 0, 0, n]) + struct.pack("!H", KIND) for n in (1, 2)]
        begin = time.monotonic_ns()
        for number in range(FRAMES):
            for sock, ends in zip((a, b), head, strict=True):
                sock.send(ends + struct.pack("!Q", time.time_ns()) + bytes(100))
            time.sleep(max(0, begin + number * PAUSE_NS - time.monotonic_ns()) / 1e9)
        there, back = delays_ms(b), delays_ms(a)
    assert there.min() >= THERE_MS and back.min() >= BACK_MS
    assert np.median(there) - THERE_MS < 0.2 and np.median(back) - BACK_MS < 0.2
