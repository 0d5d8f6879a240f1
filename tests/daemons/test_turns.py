"""The length of one turn of a mux's packet loop on the event loop, over a fake ring."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvloop

from lbmux.api.control_server import ControlServer
from lbmux.api.requests import Request
from lbmux.daemons import packet_loop
from lbmux.daemons.packet_loop import BATCHES_A_TURN, LONG_TURN_S, PacketLoop
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import CAPACITY, Batch
from tests.api.asking import ask


class Ring:
    """There is always one more frame, or as many as fit a batch."""

    def __init__(self, is_full: bool = False) -> None:
        self.received, self._is_full = 0, is_full

    def receive(self, batch: Batch) -> int:
        self.received += 1
        batch.count = batch.capacity if self._is_full else 1
        batch.verdict[: batch.count] = Verdict.PROTOCOL
        return batch.count

    def send(self, batch: Batch) -> None:
        pass

    release = send


@dataclass(frozen=True)
class Ping(Request[int], command="ping"):
    pass


class Control(ControlServer):
    """It notes the length of each request in turns of the packet loop, from its connection to its answer."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, {Ping: self._ping})
        self.turns, self._begun = 0, 0
        self.took = list[int]()

    async def _ping(self, request: Ping) -> int:
        return self.turns

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._begun = self.turns
        super()._accept(reader, writer)

    async def answers(self, line: bytes) -> AsyncGenerator[bytes]:
        async for answer in super().answers(line):
            yield answer
        self.took.append(self.turns - self._begun)


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


def test_batches_are_short_while_frames_take_long() -> None:
    ring: Any = Ring(is_full=True)
    worker: Any = Worker()
    each_s, counts = 0.0002, list[int]()

    def handle(batch: Batch, seen: object) -> None:
        counts.append(batch.count)
        time.sleep(each_s * batch.count)

    loop = PacketLoop(ring, worker, handle)
    for _ in range(10):
        loop.read()
    assert counts[0] == CAPACITY and max(counts[-3:]) * each_s <= LONG_TURN_S
    each_s = 0.0
    for _ in range(200):
        loop.read()
    assert max(counts[-100:]) == CAPACITY


def test_a_slow_batch_ends_the_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packet_loop, "LONG_TURN_S", 0.0005)
    assert received_in_a_turn() == 1


async def requests_beside(loop: PacketLoop, control: Control, count: int) -> None:
    """Make requests while the loop always has more frames to read."""
    readable, writable = os.pipe()
    os.write(writable, b"there is always something to read")

    def read() -> None:
        control.turns += 1
        loop.read()

    events = asyncio.get_running_loop()
    events.add_reader(readable, read)
    async with control:
        for _ in range(count):
            await asyncio.to_thread(ask, control.path, "ping")
    events.remove_reader(readable)
    os.close(readable)
    os.close(writable)


def test_a_saturated_loop_answers_a_request_within_100_ms(tmp_path: Path) -> None:
    control, ring, worker = Control(tmp_path / "mux.sock"), Ring(), Worker()
    loop = PacketLoop(ring, worker, lambda batch, seen: time.sleep(0.001))  # type: ignore[arg-type]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(requests_beside(loop, control, 10))
    assert len(control.took) == 10 and max(control.took) * 2 * LONG_TURN_S <= 0.1, control.took
