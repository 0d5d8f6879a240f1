"""Uploads whose sender leaves it to a device to cut frames (TSO, UDP GSO), as is the default of veth and virtio."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from lbmux.lab.lab import Lab
from lbmux.lab.topology import VIP, VIP6
from lbmux.linux.offloads import set_features
from tests.api.asking import ask
from tests.daemons.running_daemons import Daemon, configuration, running, service

pytestmark = pytest.mark.root
UPLOAD_BYTES, UDP_SEGMENT, ROUNDS = 8 << 20, 103, 10
SPREAD = 1.1
"""The quickest of several equal uploads."""
HOSTS = {VIP: "10.1.1.2", VIP6: "2001:db8:1:1::2"}


@pytest.fixture
def super_frames(lab: Lab) -> Iterator[None]:
    """The router hands them to the mux, on a veth whose far end we do not have."""
    before = lab.inside("router", lambda: set_features("to-mux1", {"tx": True, "tso": True, "gso": True}))
    yield
    lab.inside("router", lambda: set_features("to-mux1", before))


def server(lab: Lab, vip: str, kind: socket.SocketKind) -> socket.socket:
    def opened() -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET, kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of earlier tests may still be queued
        sock.bind((HOSTS[vip], 8080))
        sock.settimeout(10)
        if kind == socket.SOCK_STREAM:
            sock.listen()
        return sock

    return lab.inside("host1", opened)


def services(protocol: str) -> dict[str, object]:
    configured = [
        service(f"s{number}", 80, [{"name": "h1", "dip": dip, "port": 8080}], vip=vip, protocol=protocol)
        for number, (vip, dip) in enumerate(HOSTS.items())
    ]
    return configuration(*configured) | {"muxes": ["10.0.1.2", "2001:db8:0:1::2"]}


def counters(daemon: Daemon) -> tuple[int, dict[str, int]]:
    """Return the number of segmented super-frames, and packets by verdict."""
    said = ask(daemon.control, "counters")
    assert said["ring"]["super_frames_lost"] == 0
    return said["ring"]["super_frames"], {line["verdict"]: line["packets"] for line in said["verdicts"]}


def upload_s(lab: Lab, vip: str, listening: socket.socket) -> float:
    """Upload from the client, and return how long it took; all of it arrived."""

    def upload() -> None:
        with socket.create_connection((vip, 80), 10) as client:
            client.sendall(bytes(UPLOAD_BYTES))

    sender, begun = threading.Thread(target=lab.inside, args=("client", upload)), time.monotonic()
    sender.start()
    with listening.accept()[0] as accepted:
        accepted.settimeout(10)
        got = 0
        while piece := accepted.recv(1 << 20):
            got += len(piece)
    sender.join()
    assert got == UPLOAD_BYTES
    return time.monotonic() - begun


@pytest.mark.parametrize("driver", ["packet", "xdp"])
def test_an_upload(lab: Lab, super_frames: None, driver: str) -> None:
    lab.write_config(services("tcp"))
    with contextlib.ExitStack() as stack:
        mux = stack.enter_context(running(lab, "mux1", "mux", "--driver", driver, "--detach-on-exit"))
        stack.enter_context(running(lab, "host1", "agent"))
        for vip in HOSTS:
            listening = stack.enter_context(server(lab, vip, socket.SOCK_STREAM))
            upload_s(lab, vip, listening)
        came, verdicts = counters(mux)
    assert came > 0
    assert verdicts["malformed"] == 0
    if driver == "packet":
        assert verdicts["too_big"] == 0


def test_super_frames_are_as_quick_as_single_frames(lab: Lab, super_frames: None) -> None:
    """Alternate until it is seen: other tests may slow some uploads down."""
    lab.write_config(services("tcp"))
    with (
        running(lab, "mux1", "mux"),
        running(lab, "host1", "agent"),
        server(lab, VIP, socket.SOCK_STREAM) as listening,
    ):
        took = dict[bool, list[float]]({True: [], False: []})
        for _ in range(ROUNDS):
            for is_on in (False, True):
                switch = {"tso": is_on, "gso": is_on}
                lab.inside("router", lambda switch=switch: set_features("to-mux1", switch))
                took[is_on].append(upload_s(lab, VIP, listening))
            if min(took[True]) <= SPREAD * min(took[False]):
                break
        print(
            {is_on: [round(UPLOAD_BYTES * 8 / 1e6 / one) for one in times] for is_on, times in took.items()}, "Mbit/s"
        )
        assert min(took[True]) <= SPREAD * min(took[False]), took


def test_datagrams_of_one_call(lab: Lab, super_frames: None) -> None:
    lab.write_config(services("udp"))
    with running(lab, "mux1", "mux") as mux, running(lab, "host1", "agent"):
        for vip in HOSTS:
            with server(lab, vip, socket.SOCK_DGRAM) as listening:

                def send(vip: str = vip) -> None:
                    with socket.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_DGRAM) as sock:
                        sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1200)
                        sock.sendto(bytes(range(250)) * 48 + b"rest", (vip, 80))

                lab.inside("client", send)
                datagrams = [listening.recv(65536) for _ in range(11)]
            assert b"".join(datagrams) == bytes(range(250)) * 48 + b"rest"
            assert [len(piece) for piece in datagrams] == [1200] * 10 + [4]
        came, verdicts = counters(mux)
    assert came >= len(HOSTS)
    assert verdicts["malformed"] == verdicts["too_big"] == 0
