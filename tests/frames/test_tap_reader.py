"""What the recorder makes of records in the ring: pairs of how a frame came and how it left."""

import numpy as np

from lbmux.datapath.verdicts import Verdict
from lbmux.frames.frame_copy import FrameCopy
from lbmux.frames.tap_reader import Pairs, TapRecord
from lbmux.targets.bpf import tapped_programs

AHEAD_NS = 1_700_000_000_000_000_000
FORWARDED, DENIED = Verdict.FORWARDED, Verdict.DENIED


def record(time_ns: int, data: bytes, length: int | None = None, verdict: int = 0, **fields: int) -> bytes:
    """Return a record as a kernel program writes it, with as many of the frame's ``length`` bytes as fit."""
    head = np.zeros(1, tapped_programs.RECORD)
    head["time_ns"], head["length"], head["verdict"] = time_ns, length or len(data), verdict
    for name, value in ({"sequence": 1, "interface": 7} | fields).items():
        head[name] = value
    return head.tobytes() + data[: tapped_programs.MOST_BYTES].ljust(tapped_programs.MOST_BYTES, b"\0")


def read(*records: bytes) -> tuple[list[TapRecord], Pairs]:
    pairs = Pairs()
    joined = [pairs.add(data, AHEAD_NS) for data in records]
    return [one for one in joined if one is not None], pairs


def test_a_sent_frame_has_the_times_of_arrival_and_departure() -> None:
    (one,), _ = read(record(1000, b"came"), record(3500, b"and left", after=1, target=5, leaves_by=9))
    assert one.came == FrameCopy(b"came", 4, 7, AHEAD_NS + 1000)
    assert one.left == FrameCopy(b"and left", 8, 9, AHEAD_NS + 3500)
    assert (one.verdict, one.target) == (FORWARDED, 5)


def test_a_dropped_frame_has_its_time_of_arrival_if_known() -> None:
    end = record(3500, b"came", verdict=DENIED, after=1, target=-1)
    assert [one.came.time_ns - AHEAD_NS for one in read(record(1000, b"came"), end)[0]] == [1000]
    assert [one.came.time_ns - AHEAD_NS for one in read(end)[0]] == [3500], "a filter of drops: nothing else is there"
    assert read(end)[0][0].left is None


def test_a_frame_longer_than_a_record_keeps_its_length() -> None:
    frame = bytes(range(250)) * 12
    (one,), _ = read(record(1, frame, 3000), record(2, bytes(20) + frame, 3020, after=1))
    assert (one.came.data, one.came.length) == (frame[:2048], 3000)
    assert one.left is not None and (one.left.length, len(one.left.data)) == (3020, 2048)


def test_each_worker_has_its_own_frame() -> None:
    joined, _ = read(
        record(1, b"first", worker=0), record(2, b"second", worker=1), record(3, b"SECOND", after=1, worker=1),
        record(4, b"FIRST", after=1, worker=0),
    )  # fmt: skip
    assert [(one.came.data, one.left and one.left.data) for one in joined] == [
        (b"second", b"SECOND"), (b"first", b"FIRST"),
    ]  # fmt: skip


def test_an_end_without_its_beginning_is_lost() -> None:
    joined, pairs = read(record(1, b"one"), record(2, b"TWO", after=1, sequence=2))
    assert (joined, pairs.lost) == ([], 1)
