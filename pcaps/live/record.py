"""Records the captures here, in a lab of its own, as root: python pcaps/live/record.py

What the lab's router receives, from all sides: each packet once a hop, the first bytes of each frame.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from lbmux.lab.lab import Lab
from lbmux.lab.namespaces import set_route
from lbmux.lab.topology import VIP, Route, ananta
from tests.daemons.slow_lab import DIPS, PORT, VIPS, balanced, client_socket, served
from tests.daemons.test_fragments import CONTENT, echo
from tests.daemons.test_mtu import narrow

ALL = 0x0003
SNAP_BYTES = 160
SETTLE_S = 0.3
SMALL = bytes(range(256)) * 60
IP = (0x0800, 0x86DD)


@contextlib.contextmanager
def recorded(lab: Lab, name: str) -> Iterator[None]:
    """What the router receives meanwhile, in NAME.pcap; neighbours' questions are left out."""
    sock = lab.inside("router", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL)))
    sock.settimeout(0.1)
    frames, done = list[Ether](), threading.Event()

    def read() -> None:
        while not done.is_set():
            with contextlib.suppress(TimeoutError):
                frame, origin = sock.recvfrom(65536)
                if origin[2] == socket.PACKET_HOST and int.from_bytes(frame[12:14], "big") in IP:
                    packet = Ether(frame[:SNAP_BYTES])
                    packet.time, packet.wirelen = time.time(), len(frame)
                    frames.append(packet)

    thread = threading.Thread(target=read)
    thread.start()
    yield
    time.sleep(SETTLE_S)  # frames in flight
    done.set()
    thread.join()
    sock.close()
    wrpcap(str(HERE / f"{name}.pcap"), frames)
    print(f"{name}.pcap: {len(frames)} frames, {(HERE / f'{name}.pcap').stat().st_size} bytes")


def download(lab: Lab, family: int) -> None:
    with client_socket(lab, family, "tcp") as sock:
        sock.connect((VIPS[family], PORT["tcp"]))
        content = b"".join(iter(lambda: sock.recv(65536), b""))
    assert content == SMALL


def give_small(sock: socket.socket, host: int) -> None:
    while True:
        connection, _ = sock.accept()
        with connection:
            connection.sendall(SMALL)


def datagram(lab: Lab) -> None:
    with client_socket(lab, 4, "udp") as sock:
        sock.connect((VIPS[4], PORT["udp"]))
        sock.send(CONTENT)
        assert sock.recv(65536)[1:] == CONTENT


def command(lab: Lab, *words: str) -> Callable[[], None]:
    return lambda: print(lab.run("client", words, capture_output=True, text=True, timeout=30).stdout)


def record(lab: Lab) -> None:
    with balanced(lab, hosts=(1,)):
        for family, name in ((4, "ping"), (6, "ping6")):
            with recorded(lab, name):
                command(lab, "ping", f"-{family}", "-n", "-c", "3", "-i", "0.2", VIPS[family])()
        with served(lab, 4, "udp", echo, hosts=(1,)), recorded(lab, "datagram-9000"):
            datagram(lab)
        for family, name in ((4, "path-mtu"), (6, "path-mtu6")):
            with (
                served(lab, family, "tcp", give_small, hosts=(1,)),
                narrow(lab, "router", "to-client", 1400),
                recorded(lab, name),
            ):
                download(lab, family)
    for family, name in ((4, "tracepath"), (6, "tracepath6")):
        backend = {"name": "h1", "dip": DIPS[family].format(1)}
        service = {"name": "any", "vip": VIPS[family], "protocol": "udp", "port": "any", "backends": [backend]}
        with balanced(lab, hosts=(1,), services=[service]), recorded(lab, name):
            command(lab, "tracepath", f"-{family}", "-n", "-m", "3", VIPS[family])()


if __name__ == "__main__":
    lab = Lab(ananta(), f"r{os.getpid()}")
    lab.up(programs=False)
    try:
        lab.inside("router", lambda: set_route(Route(f"{VIP}/32", ("10.0.1.2",))))
        record(lab)
    finally:
        lab.down()
