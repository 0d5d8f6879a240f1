"""Batches through the native target."""

import numpy as np
import pytest

from lbmux.datapath.tables import Sizes
from lbmux.datapath.verdicts import Verdict
from lbmux.frames.batch import HEADROOM_BYTES as BATCH_HEADROOM_BYTES
from lbmux.frames.batch import Batch
from lbmux.targets.native import AHEAD, HEADROOM_BYTES, Worker
from lbmux.targets.regions import Tables
from tests.datapath.craft import Craft
from tests.datapath.harness import Frames, Machine
from tests.datapath.plain_mux import Backend, Service
from tests.datapath.plain_packet import TCP

GOOD = Craft().frame()


def mux() -> Machine:
    machine = Machine.make(64)
    machine.install_mux([Service(Craft().destination, TCP, 80, (0,))], [Backend(bytes([10, 1, 0, 1]))])
    machine.tables.backends[0]["interface"] = 7
    return machine


def test_drivers_leave_the_headroom_that_the_data_path_takes() -> None:
    assert BATCH_HEADROOM_BYTES >= HEADROOM_BYTES >= 20


@pytest.mark.parametrize("count", [0, 1, AHEAD - 1, AHEAD, AHEAD + 1, 300])
def test_a_batch_of_any_size(count: int) -> None:
    """The last frames of a batch have no frame to prefetch for."""
    batch = Frames([Craft(source_port=1 + at).frame() for at in range(count)])
    mux().worker.forward(batch, 1)
    assert (batch.verdict == Verdict.FORWARDED).all()
    assert (batch.length == len(GOOD) + 20).all()


def test_frames_beyond_the_count_are_not_touched() -> None:
    batch = Frames([GOOD] * 5)
    batch.count = 2
    mux().worker.forward(batch, 1)
    assert batch.verdict.tolist() == [Verdict.FORWARDED] * 2 + [255] * 3
    assert batch.length.tolist() == [len(GOOD) + 20] * 2 + [len(GOOD)] * 3


def test_a_frame_that_is_sent_says_by_which_interface() -> None:
    other = Craft(destination_port=81).frame()
    batch = Frames([GOOD, other])
    batch.interface[:] = 3
    mux().worker.forward(batch, 1)
    assert batch.interface.tolist() == [7, 3]


def test_an_empty_batch_of_a_driver() -> None:
    Worker(Tables.allocate(Sizes(64, 4, 16, 4, 4))).forward(Batch(4), 1)


def test_a_batch_of_a_driver() -> None:
    memory = np.zeros(4096, np.uint8)
    batch = Batch(4)
    batch.count = 1
    batch.address[0], batch.length[0] = memory.ctypes.data + BATCH_HEADROOM_BYTES, len(GOOD)
    memory[BATCH_HEADROOM_BYTES : BATCH_HEADROOM_BYTES + len(GOOD)] = np.frombuffer(GOOD, np.uint8)
    mux().worker.forward(batch, 1)
    assert (batch.verdict[0], batch.target[0], batch.length[0]) == (Verdict.FORWARDED, 0, len(GOOD) + 20)
    assert batch.address[0] == memory.ctypes.data + BATCH_HEADROOM_BYTES - 20


def test_frames_of_many_lengths_side_by_side() -> None:
    """Neighbours in memory do not disturb each other."""
    frames = [Craft(payload=bytes([length % 256]) * length).frame() for length in range(0, 1400, 37)]
    batch = Frames(frames)
    mux().worker.forward(batch, 1)
    expected = [Craft(payload=bytes([size % 256]) * size, ttl=62).frame() for size in range(0, 1400, 37)]
    assert [after[34:] for _, _, after in batch.results()] == [frame[14:] for frame in expected]
    assert batch.untouched_around()
