"""Delay, jitter, loss and order between sites, at times that the tests choose."""

import random

import numpy as np
import pytest

from lbmux.frames.batch import Batch
from lbmux.frames.delay_lines import DelayLines, Path
from tests.datapath.harness import Frames
from tests.frames.plain_delay_lines import PlainLines

MS = 1_000_000
A, B, C = (bytes([2, 0, 0, 0, 0, n]) for n in range(3))
ALL = b"\xff" * 6
INTERFACES = [10, 11, 12]


def frame(to: bytes, source: bytes, text: bytes = b"") -> bytes:
    return to + source + b"\x08\x00" + text


def put(lines: DelayLines, site: int, *frames: bytes, at_ms: float = 0) -> None:
    lines.enter(Frames(frames), np.full(len(frames), round(at_ms * MS), np.int64), site)  # type: ignore[arg-type]


def left(lines: DelayLines, at_ms: float) -> list[tuple[int, bytes]]:
    """Interface and frame of all that are due."""
    batch, frames = Batch(), list[tuple[int, bytes]]()
    while lines.leave(batch, round(at_ms * MS)):
        frames += [(int(batch.interface[at]), _bytes(batch, at)) for at in range(batch.count)]
    return frames


def _bytes(batch: Batch, at: int) -> bytes:
    import ctypes

    return ctypes.string_at(int(batch.address[at]), int(batch.length[at]))


def two(there: Path, back_ms: float = 0, **more: int) -> DelayLines:
    return DelayLines(INTERFACES[:2], {(0, 1): there, (1, 0): Path(back_ms)}, **more)


def test_a_frame_leaves_at_the_other_site_when_it_is_due() -> None:
    lines, one = two(Path(5), 2), frame(ALL, A)
    put(lines, 0, one, at_ms=100)
    assert lines.next_due() == 105 * MS and left(lines, 104.999) == []
    assert left(lines, 105) == [(11, one)]
    put(lines, 1, one, at_ms=200)
    assert left(lines, 202) == [(10, one)]
    assert lines.next_due() == np.iinfo(np.int64).max


def test_unknown_destinations_are_flooded_and_known_ones_are_not() -> None:
    paths = {(a, b): Path(1) for a in range(3) for b in range(3) if a != b}
    lines = DelayLines(INTERFACES, paths)
    put(lines, 0, frame(B, A))
    assert [interface for interface, _ in left(lines, 1)] == [11, 12]
    put(lines, 1, frame(A, B))
    put(lines, 0, frame(B, A))
    assert sorted(interface for interface, _ in left(lines, 1)) == [10, 11]


def test_sites_without_a_path_do_not_reach_each_other() -> None:
    lines = DelayLines(INTERFACES, {(0, 1): Path(1)})
    put(lines, 0, frame(ALL, A))
    put(lines, 1, frame(ALL, B))
    assert [interface for interface, _ in left(lines, 9)] == [11]


def test_jitter_stays_within_its_bounds_and_no_frame_overtakes() -> None:
    lines, frames = two(Path(10, 2)), [frame(ALL, A, bytes([n])) for n in range(200)]
    for at, one in enumerate(frames):
        put(lines, 0, one, at_ms=5 * at)
    due = []
    while lines.next_due() < np.iinfo(np.int64).max:
        due.append(lines.next_due() / MS)
        assert left(lines, due[-1]) == [(11, frames[len(due) - 1])]
    delays = np.array(due) - 5 * np.arange(200)
    assert 8 <= delays.min() < 8.2 and 11.8 < delays.max() <= 12 and abs(delays.mean() - 10) < 0.3
    close = two(Path(10, 5))
    put(close, 0, *frames)
    assert [one for _, one in left(close, 15)] == frames


@pytest.mark.parametrize("seed", [1, 2])
def test_loss_has_its_share_and_the_same_seed_loses_the_same(seed: int) -> None:
    frames = [frame(ALL, A, n.to_bytes(2, "big")) for n in range(2000)]

    def arriving() -> list[tuple[int, bytes]]:
        lines = two(Path(1, loss=0.1), seed=seed)
        put(lines, 0, *frames)
        arrived = left(lines, 1)
        assert lines.counters[1].tolist() == [2000 - len(arrived), 0, len(arrived), 0]
        return arrived

    assert arriving() == arriving() and 1750 < len(arriving()) < 1850


def test_a_full_queue_drops_and_counts() -> None:
    lines = two(Path(1), queue=8)
    put(lines, 0, *[frame(ALL, A)] * 10)
    assert len(left(lines, 1)) == 8
    assert lines.counters[1].tolist() == [0, 2, 8, 0]
    put(lines, 0, frame(ALL, A), at_ms=2)
    assert len(left(lines, 3)) == 1


def test_what_leaves_late_is_counted_and_errors_are_measured() -> None:
    lines = two(Path(1))
    put(lines, 0, *[frame(ALL, A)] * 99)
    left(lines, 1.05)
    put(lines, 0, frame(ALL, A))
    left(lines, 3)
    assert lines.counters[1].tolist() == [0, 0, 100, 1]
    assert lines.error_ns(0.5) == 50_000 and lines.error_ns(1) == 2_000_000


def test_frames_that_do_not_fit_are_ignored() -> None:
    lines = two(Path(1))
    put(lines, 0, b"short", bytes(5000))
    assert left(lines, 9) == []


def test_agrees_with_the_plain_delay_lines() -> None:
    """Random frames at random times, and the same of both."""
    chance, paths = (
        random.Random(7),
        {(0, 1): Path(3, 1, 0.1), (1, 0): Path(1), (0, 2): Path(2, 2), (2, 1): Path(1, 0, 1)},
    )
    lines, plain = DelayLines(INTERFACES, paths, 16, 5), PlainLines(3, paths, 16, 5)
    for at_ms in range(400):
        for _ in range(chance.randrange(4)):
            site = chance.randrange(3)
            one = frame(chance.choice([A, B, C, ALL]), (A, B, C)[site], bytes([chance.randrange(256)]))
            put(lines, site, one, at_ms=at_ms)
            plain.enter(one, at_ms * MS, site)
        if chance.random() < 0.7:
            assert left(lines, at_ms) == [(INTERFACES[site], one) for site, one in plain.leave(at_ms * MS)]
    assert lines.counters[:, 0].sum() == plain.lost > 0 and lines.counters[:, 1].sum() == plain.overflowed
