"""The packet loop's progress, which feeds the watchdog, over a fake ring."""

import time
from typing import Any

import pytest

from lbmux.daemons import packet_loop
from lbmux.daemons.packet_loop import BEHIND_S, PacketLoop
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import Batch


class Ring:
    """A ring that has frames or none; reading it may fail."""

    def __init__(self) -> None:
        self.waiting, self.is_broken = False, False

    def waits(self) -> bool:
        return self.waiting

    def receive(self, batch: Batch) -> int:
        if self.is_broken:
            raise OSError("broken")
        self.waiting = False
        return 0


@pytest.fixture
def ring() -> Ring:
    return Ring()


@pytest.fixture
def loop(ring: Ring) -> PacketLoop:
    nothing: Any = None
    driver: Any = ring
    return PacketLoop(driver, nothing)


def test_an_idle_loop_makes_progress(loop: PacketLoop) -> None:
    assert loop.made_progress() and loop.made_progress()


def test_a_busy_loop_makes_progress_whatever_waits(loop: PacketLoop, ring: Ring) -> None:
    for _ in range(2):
        loop.read()
        ring.waiting = True
        assert loop.made_progress()


def test_a_loop_that_does_not_read_waiting_frames_is_stuck(loop: PacketLoop, ring: Ring) -> None:
    loop.read()
    ring.waiting = True
    assert [loop.made_progress(), loop.made_progress()] == [True, False]


def test_a_loop_that_raises_is_stuck_until_it_reads(loop: PacketLoop, ring: Ring) -> None:
    ring.waiting = ring.is_broken = True
    for _ in range(2):
        with pytest.raises(OSError, match="broken"):
            loop.read()
        assert not loop.made_progress()
    ring.is_broken = False
    loop.read()
    assert loop.made_progress()


class FullRing(Ring):
    """A ring that gives whole batches until it is empty."""

    left = 0

    def receive(self, batch: Batch) -> int:
        batch.count = min(batch.capacity, self.left)
        self.left -= batch.count
        return batch.count

    def send(self, batch: Batch) -> int:
        return 0

    def release(self, batch: Batch) -> None:
        pass


class Forwarding:
    def forward(self, batch: Batch, now: int) -> None:
        batch.verdict[: batch.count] = Verdict.FORWARDED


def test_a_loop_whose_ring_has_not_been_empty_for_a_time_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(packet_loop.time, "monotonic", lambda: now)
    ring: Any = FullRing()
    worker: Any = Forwarding()
    loop = PacketLoop(ring, worker)
    ring.left = 10_000_000
    loop.read()
    assert not loop.is_behind()
    now += BEHIND_S + 0.01
    loop.read()
    assert loop.is_behind()
    ring.left = 1
    loop.read()
    assert not loop.is_behind(), "it was empty"
    now += 10.0
    ring.left = 10_000_000
    loop.read()
    assert not loop.is_behind(), "it was idle before"


class SendingRing(Ring):
    def send(self, batch: Batch) -> int:
        return 0


class TooBig:
    """A worker whose every frame is too big for the tunnel."""

    def forward(self, batch: Batch, now: int) -> None:
        batch.verdict[: batch.count] = Verdict.TOO_BIG


def test_a_frame_that_waited_and_is_too_big_then_goes_the_slow_path() -> None:
    ring: Any = SendingRing()
    worker: Any = TooBig()
    slow = list[tuple[int, int]]()
    loop = PacketLoop(ring, worker, lambda batch, seen: slow.append((int(batch.verdict[0]), int(batch.length[0]))))
    loop.pending_neighbours.add(bytes(1500), 0, time.monotonic())
    loop.retry()
    assert slow == [(Verdict.TOO_BIG, 1500)] and not len(loop.pending_neighbours)
