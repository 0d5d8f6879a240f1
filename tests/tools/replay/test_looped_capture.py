"""Captures played once and several times over."""

import struct
from pathlib import Path

import pytest

from lbmux.errors import CaptureError
from lbmux.tools.replay.looped_capture import LoopedCapture

FRAME = bytes(64)


def capture(path: Path, *times_us: int, tail: bytes = b"") -> Path:
    records = (struct.pack("<IIII", time // 10**6, time % 10**6, 64, 64) + FRAME for time in times_us)
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(records) + tail)
    return path


def times_us(path: Path, loop: int) -> list[int]:
    with LoopedCapture(path, loop) as looped:
        times = [int(time) // 1000 for frames in looped.batches() for time in frames.time_ns[: frames.count]]
        assert (looped.packets, looped.bytes) == (len(times), 64 * len(times))
        assert looped.offset == looped.size_bytes
    return times


def test_one_round_equals_the_capture(tmp_path: Path) -> None:
    assert times_us(capture(tmp_path / "a", 5, 7, 10), 1) == [5, 7, 10]


def test_each_round_continues_where_the_previous_one_ended(tmp_path: Path) -> None:
    assert times_us(capture(tmp_path / "a", 5, 7, 10), 3) == [5, 7, 10, 10, 12, 15, 15, 17, 20]


def test_rounds_larger_than_a_batch_are_shifted_as_a_whole(tmp_path: Path) -> None:
    times = times_us(capture(tmp_path / "a", *range(3000)), 2)
    assert times == [*range(3000), *range(2999, 5999)]


def test_rounds_of_an_empty_capture(tmp_path: Path) -> None:
    assert times_us(capture(tmp_path / "a"), 3) == []


def test_damage_ends_the_first_round(tmp_path: Path) -> None:
    with LoopedCapture(capture(tmp_path / "a", 1, 2, tail=b"cut"), 3) as looped:
        with pytest.raises(CaptureError) as raised:
            for _ in looped.batches():
                pass
        assert looped.packets == 2
        assert raised.value.offset == 24 + 2 * 80
