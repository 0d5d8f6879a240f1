"""How long a mux's packet loop takes before others of the event loop have their turn; the ring is not there."""

import time
from typing import Any

import pytest

from lbmux.daemons import packet_loop
from lbmux.daemons.packet_loop import BATCHES_A_TURN, LONG_TURN_S, PacketLoop
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import Batch


class Ring:
    """There is always one more frame."""

    def __init__(self) -> None:
        self.received = 0

    def receive(self, batch: Batch) -> int:
        self.received += 1
        batch.count, batch.verdict[0] = 1, Verdict.PROTOCOL
        return 1

    def send(self, batch: Batch) -> None:
        pass

    release = send


class Worker:
    def forward(self, batch: Batch, now: int) -> None:
        pass


def received_in_a_turn() -> int:
    ring: Any = Ring()
    worker: Any = Worker()
    PacketLoop(ring, worker, lambda batch, seen: time.sleep(0.001)).read()
    return int(ring.received)


def test_quick_batches_are_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packet_loop, "LONG_TURN_S", 60.0)
    assert received_in_a_turn() == BATCHES_A_TURN


def test_after_a_slow_one_others_have_their_turn_or_the_watchdog_takes_the_mux_for_stuck() -> None:
    assert received_in_a_turn() <= LONG_TURN_S / 0.001 + 1 < BATCHES_A_TURN


def test_one_that_takes_long_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packet_loop, "LONG_TURN_S", 0.0005)
    assert received_in_a_turn() == 1
