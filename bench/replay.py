"""Replay of a million packets from file to file, compared with reading and writing alone."""

import tempfile
import time
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np

from bench.frames import Frames, config
from bench.report import Result, median
from lbmux.addresses import mac_to_int
from lbmux.frames.capture_reader import CaptureReader
from lbmux.frames.captured_frames import CapturedFrames
from lbmux.frames.pcap import PcapWriter
from lbmux.linux.next_hops import NextHop
from lbmux.tools.replay.looped_capture import LoopedCapture
from lbmux.tools.replay.replay import ReplayMux, replay

PACKETS, FLOWS = 1_000_000, 100_000
START_NS = 1_700_000_000 * 10**9
HOP = NextHop(0, mac_to_int("02:00:00:00:00:01"), mac_to_int("02:00:00:00:00:02"), 1500)


def run() -> list[Result]:
    # Use a tmpfs if there is one, to measure the program and not the disk.
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as directory:
        source, target = Path(directory, "in.pcap"), Path(directory, "out.pcap")
        _write(source)

        def through() -> float:
            looped, mux = LoopedCapture(source), ReplayMux(config(), [IPv4Address("10.0.0.1")], HOP)
            start = time.perf_counter()
            with PcapWriter(target) as writer:
                result = replay(looped, mux, writer)
            seconds = time.perf_counter() - start
            assert result.written == PACKETS, result
            return PACKETS / seconds / 1e6

        def copied() -> float:
            frames, start = CapturedFrames(), time.perf_counter()
            with PcapWriter(target) as writer:
                for batch in CaptureReader(source).batches(frames):
                    writer.write(batch, 255)
            return PACKETS / (time.perf_counter() - start) / 1e6

        through(), copied()
        rate, limit = median(through), median(copied)
    name = f"{PACKETS:,} packets of 64 bytes, {FLOWS:,} flows"
    return [
        Result("replay", f"{name}: read and written only", limit, "Mpps"),
        Result("replay", f"{name}: file to file", rate, "Mpps", "read and written only", rate / limit, ">= 1.5"),
    ]


def _write(path: Path) -> None:
    """Write the capture, with its flows in rotation, a microsecond apart."""
    frames, batch, first = Frames(FLOWS), CapturedFrames(), 0
    with PcapWriter(path) as writer:
        while first < PACKETS:
            at = first % FLOWS
            count = min(batch.capacity, FLOWS - at, PACKETS - first)
            batch.address[:count] = frames.batch.address[at : at + count]
            batch.length[:count], batch.verdict[:count], batch.count = frames.length, 0, count
            batch.time_ns[:count] = START_NS + 1000 * np.arange(first, first + count)
            writer.write(batch, 255)
            first += count
