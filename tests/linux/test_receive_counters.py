"""What the kernel counts where packets arrive."""

import os
import socket
import time

import pytest
from pyroute2 import IPRoute, netns

from lbmux.lab.namespaces import inside
from lbmux.linux.receive_counters import dropped_frames, softirq_s


def test_each_cpu_has_its_time_which_grows() -> None:
    first = softirq_s()
    assert len(first) == os.cpu_count() and all(0 <= seconds < time.monotonic() for seconds in first)
    assert all(after >= before for before, after in zip(first, softirq_s(), strict=True))


def test_an_interface_that_does_not_exist_dropped_nothing() -> None:
    assert dropped_frames("gone0") == 0


@pytest.mark.root
def test_frames_that_no_protocol_wants_are_dropped_by_the_interface() -> None:
    name = f"drops{os.getpid()}"
    netns.create(name)

    def dropped() -> list[int]:
        with IPRoute() as ip:
            ip.link("add", ifname="a0", kind="veth", peer={"ifname": "b0"})
            for one in ("a0", "b0"):
                ip.link("set", index=ip.link_lookup(ifname=one)[0], state="up")
        before = dropped_frames("b0")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
            sock.bind(("a0", 0))
            for _ in range(20):
                sock.send(b"\xff" * 6 + bytes(6) + b"\x88\xb5" + bytes(50))
        deadline = time.monotonic() + 5
        while dropped_frames("b0") < before + 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        return [before, dropped_frames("b0")]

    try:
        before, after = inside(name, dropped)
        assert after >= before + 20
    finally:
        netns.remove(name)
