"""The length of one turn of a mux's packet loop on the event loop, over a fake ring."""

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


def test_a_slow_turn_ends_before_the_watchdog_reacts() -> None:
    assert received_in_a_turn() <= LONG_TURN_S / 0.001 + 1 < BATCHES_A_TURN


def test_a_slow_batch_ends_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packet_loop, "LONG_TURN_S", 0.0005)
    assert received_in_a_turn() == 1
