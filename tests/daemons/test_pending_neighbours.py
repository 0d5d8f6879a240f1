"""Frames that wait for a MAC address keep the time when they came."""

import time

import pytest

from lbmux.daemons.pending_neighbours import LIMIT_S, PendingNeighbours


def test_a_waiting_frame_keeps_its_time_of_arrival() -> None:
    waiting, now, wall_ns = PendingNeighbours(), time.monotonic(), time.time_ns()
    for age_s, frame in ((0.5, bytes(60)), (0.25, bytes(100))):
        waiting.add(frame, 0, now - age_s)
    assert waiting.take(time.monotonic())[1].count == 2
    (first_ns, first), (second_ns, second) = waiting.arrivals(2)
    assert (first, second) == (60, 100)
    assert wall_ns - first_ns == pytest.approx(500_000_000, abs=50_000_000)
    assert second_ns - first_ns == pytest.approx(250_000_000, abs=1_000_000)


def test_a_frame_that_waited_too_long_is_dropped() -> None:
    waiting, now = PendingNeighbours(), time.monotonic()
    waiting.add(bytes(60), 0, now - 2 * LIMIT_S)
    waiting.add(bytes(100), 0, now)
    _, batch = waiting.take(time.monotonic())
    assert batch.count == 1 and [length for _, length in waiting.arrivals(9)] == [100]
