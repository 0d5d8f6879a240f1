"""Packets that a mux drops, or leaves alone: which, and why."""

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from lbmux.lab.topology import VIP
from tests.lab.broken.broken import WEB, Broken, until

pytestmark = pytest.mark.root

WIRE = Path(__file__).parent.with_name("frame_socket.py")


def test_vip_not_configured(either: Broken) -> None:
    assert "no service has the VIP 192.0.2.77" in either.explain("198.51.100.2:40000 > 192.0.2.77:80/tcp")
    with either.changed("router", "ip route add 192.0.2.77 via 10.0.1.2", "ip route del 192.0.2.77"):
        said = either.trace("dst host 192.0.2.77", lambda: either.syns("192.0.2.77"))
    assert "verdict       not_vip (pass)" in said and "no service has the VIP 192.0.2.77" in said


def test_a_denied_client(either: Broken) -> None:
    def deny(config: dict[str, Any]) -> None:
        config["services"][0]["deny"] = ["198.51.100.0/24"]

    with either.config(deny, "mux1"):
        assert "198.51.100.2 is denied, by 198.51.100.0/24 in `deny`" in either.explain(WEB)
        said = either.trace("drop", lambda: either.syns(VIP))
        assert "verdict       denied (drop), web" in said and "\n  hint  " in said


def test_a_capture_says_why_a_packet_was_dropped(pool: Broken, tmp_path: Path) -> None:
    def deny(config: dict[str, Any]) -> None:
        config["services"][0]["allow"] = ["203.0.113.0/24"]

    path = tmp_path / "drops.pcapng"
    with pool.config(deny, "mux1"), pool.watched("capture", "--at", "drop", "-n", "1", "-w", str(path)) as client:
        pool.syns(VIP)
        assert "1 packet in" in client.completed().stdout
    assert b"drop: verdict denied (drop), service web" in path.read_bytes()


def test_a_packet_too_long_for_the_tunnel(pool: Broken) -> None:
    assert "advertise a smaller MSS" in pool.explain(WEB, length=1500)


def test_short_frames(pool: Broken) -> None:
    mac = bytes.fromhex(pool.mac("mux1").replace(":", ""))

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"\x45" + bytes(9), ("to-mux1", 0x0800, 0, 0, mac))

    pool.lab.inside("router", send)
    until(lambda: pool.doctor("mux1").says("truncated", "ended within a header", "warning"))


def test_a_full_flow_table(either: Broken) -> None:
    either.lab.run("client", [sys.executable, str(WIRE), "flows", VIP, "80", "6000", "1"], check=True)
    until(lambda: either.doctor("mux1").says("flow table", "full now or earlier", "warning"))
