"""Captures through a mux: what was counted, what was written, and the clock, which is the capture's."""

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapReader

from lbmux.addresses import mac_to_int
from lbmux.config.models import Config
from lbmux.errors import CaptureError
from lbmux.frames.pcap import PcapWriter
from lbmux.linux.next_hops import NextHop
from lbmux.tools.replay.looped_capture import LoopedCapture
from lbmux.tools.replay.replay import Count, ReplayMux, Result, replay
from tests.datapath.plain_packet import a_hop_on
from tests.frames.captures import NANO, pcap, record

HOP = NextHop(0, mac_to_int("02:00:00:00:00:01"), mac_to_int("02:00:00:00:00:02"), 1500)
LOCAL = IPv4Address("10.0.0.1")


def config(backends: int = 2, untrusted_s: int = 10) -> Config:
    return Config.model_validate(
        {
            "idle": {"untrusted_s": untrusted_s},
            "flows": {"limit": 1024},
            "services": [
                {
                    "name": "web", "vip": "192.0.2.1", "protocol": "tcp", "port": 80,
                    "backends": [{"name": f"h{n}", "dip": f"10.1.{n}.2"} for n in range(1, backends + 1)],
                }
            ],
        }
    )  # fmt: skip


def frame(port: int = 40000, destination: str = "192.0.2.1", flags: str = "A") -> bytes:
    ip = IP(src="198.51.100.7", dst=destination)
    return bytes(Ether(src="02:00:00:00:00:07", dst="02:00:00:00:00:08") / ip / TCP(sport=port, dport=80, flags=flags))


def run(
    directory: Path, content: bytes, configuration: Config | None = None, loop: int = 1
) -> tuple[Result, list[bytes]]:
    source, target = directory / "in", directory / "out"
    source.write_bytes(content)
    mux = ReplayMux(configuration or config(), [LOCAL], HOP)
    with LoopedCapture(source, loop) as looped, PcapWriter(target, looped.raw, looped.nanoseconds) as writer:
        result = replay(looped, mux, writer)
    with RawPcapReader(str(target)) as written:
        return result, [data for data, _ in written]


def lookups(directory: Path, *records: bytes, untrusted_s: int = 10) -> list[str]:
    """What the flow table was found to hold for each packet of a capture, all in one batch."""
    source = directory / "in"
    source.write_bytes(pcap(*records))
    mux = ReplayMux(config(untrusted_s=untrusted_s), [LOCAL], HOP)
    with LoopedCapture(source) as looped:
        replay(looped, mux)
    counted = mux.lookups()
    return [name for name, number in counted.items() for _ in range(number)]


class TestResult:
    def test_counts_by_verdict_and_backend(self, tmp_path: Path) -> None:
        frames = [frame(port) for port in range(40000, 40100)] + [frame(destination="192.0.2.9")] * 3 + [bytes(60)]
        result, written = run(tmp_path, pcap(*map(record, frames)))
        assert result.verdicts == {
            "forwarded": Count(100, 5400), "not_ip": Count(1, 60), "not_vip": Count(3, 162),
        }  # fmt: skip
        assert (result.packets, result.bytes) == (104, 5622)
        assert result.written == len(written) == 100
        by_host = {host: sum(IP(data[14:]).dst == host for data in written) for host in ("10.1.1.2", "10.1.2.2")}
        assert [each.packets for each in result.backends.values()] == list(by_host.values())
        assert sum(by_host.values()) == 100 and min(by_host.values()) > 20

    def test_backends_have_the_outer_packets_bytes(self, tmp_path: Path) -> None:
        result, _ = run(tmp_path, pcap(record(frame())), config(1))
        assert result.backends == {"web/h1": Count(1, 60)}

    def test_backend_without_packets_is_named(self, tmp_path: Path) -> None:
        result, _ = run(tmp_path, pcap(record(frame())), config(3))
        assert sorted(each.packets for each in result.backends.values()) == [0, 0, 1]

    def test_nothing_captured(self, tmp_path: Path) -> None:
        result, written = run(tmp_path, pcap())
        assert (result.packets, result.verdicts, written) == (0, {}, [])

    def test_intact_packets_come_with_the_damage(self, tmp_path: Path) -> None:
        whole = pcap(record(frame()), record(frame()))
        result, written = run(tmp_path, whole + record(frame())[:-1])
        assert result.packets == len(written) == 2
        assert isinstance(result.damage, CaptureError) and result.damage.offset == len(whole)

    def test_loops_count_every_round(self, tmp_path: Path) -> None:
        result, written = run(tmp_path, pcap(record(frame())), loop=5)
        assert result.packets == len(written) == 5

    def test_packets_per_second(self) -> None:
        result = Result(10, 640, 0.5, None, {}, {})
        assert result.packets_per_second == 20
        assert replace(result, seconds=0.0).packets_per_second == 0


class TestWritten:
    def test_frame_is_tunnelled_to_the_backend(self, tmp_path: Path) -> None:
        _, (written,) = run(tmp_path, pcap(record(frame())), config(1))
        sent = Ether(written)
        assert (sent.src, sent.dst) == ("02:00:00:00:00:01", "02:00:00:00:00:02")
        assert (sent[IP].src, sent[IP].dst, sent[IP].proto, sent[IP].ttl) == ("10.0.0.1", "10.1.1.2", 4, 64)
        assert bytes(sent[IP].payload) == a_hop_on(frame())

    @pytest.mark.parametrize(("magic", "unit"), [(None, 123_456), (NANO, 123_456_789)])
    def test_times_are_kept(self, tmp_path: Path, magic: int | None, unit: int) -> None:
        kind = {"magic": magic} if magic else {}
        run(tmp_path, pcap(record(frame(), 1_700_000_000, unit), **kind))
        with RawPcapReader(str(tmp_path / "out")) as written:
            ((_, meta),) = written
        assert (meta.sec, meta.usec) == (1_700_000_000, unit)

    def test_raw_ip_stays_raw_ip(self, tmp_path: Path) -> None:
        _, (written,) = run(tmp_path, pcap(record(frame()[14:]), link=101), config(1))
        assert (IP(written).dst, bytes(IP(written).payload)) == ("10.1.1.2", a_hop_on(frame()))

    @pytest.mark.slow
    def test_packets_in_order_across_batches(self, tmp_path: Path) -> None:
        frames = [frame(port) for port in range(10_000, 11_500)]
        _, written = run(tmp_path, pcap(*map(record, frames)))
        assert [data[34:] for data in written] == [a_hop_on(data) for data in frames]


class TestClock:
    def test_a_flow_that_continues_is_known(self, tmp_path: Path) -> None:
        assert lookups(tmp_path, record(frame(), 100), record(frame(), 109)) == ["hit", "new"]

    def test_flow_idle_for_too_long_by_the_captures_time_is_new(self, tmp_path: Path) -> None:
        assert "expired" in lookups(tmp_path, record(frame(), 100), record(frame(), 111))

    def test_idle_time_runs_within_a_second(self, tmp_path: Path) -> None:
        records = record(frame(), 100, 900_000), record(frame(), 102, 0)
        assert "expired" in lookups(tmp_path, *records, untrusted_s=1)
        assert "hit" in lookups(tmp_path, *records, untrusted_s=2)

    def test_time_that_goes_back_makes_no_flow_old(self, tmp_path: Path) -> None:
        assert lookups(tmp_path, record(frame(), 100), record(frame(), 50), record(frame(), 101)) == [
            "hit", "hit", "new",
        ]  # fmt: skip

    def test_begin_of_time(self, tmp_path: Path) -> None:
        assert lookups(tmp_path, record(frame(), 0), record(frame(), 1)) == ["hit", "new"]

    def test_same_frames_in_parts_and_at_once(self, tmp_path: Path) -> None:
        """Cutting a batch by time does not change the sent frames."""
        frames = [frame(40000 + n % 50) for n in range(500)]
        _, at_once = run(tmp_path, pcap(*map(record, frames)))
        _, in_parts = run(tmp_path, pcap(*(record(data, number) for number, data in enumerate(frames))))
        assert at_once == in_parts


def test_large_frame_that_no_path_takes(tmp_path: Path) -> None:
    large = bytes(
        Ether(dst="02:00:00:00:00:08") / IP(dst="192.0.2.1") / TCP(dport=80) / np.zeros(1500, np.uint8).tobytes()
    )
    result, written = run(tmp_path, pcap(record(large)))
    assert (list(result.verdicts), written) == (["too_big"], [])
