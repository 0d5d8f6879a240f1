"""A mux with one service and as many backends as a test needs, and flows through it."""

import random

import numpy as np

from lbmux.datapath.verdicts import Verdict
from lbmux.tables.slot_pairs import steady
from lbmux.targets.native import Worker
from tests.datapath.craft import ACK, Craft
from tests.datapath.harness import Frames, Machine
from tests.datapath.plain_flows import Idle
from tests.datapath.plain_mux import Backend, Service
from tests.datapath.plain_packet import TCP

VIP = Craft().destination
IDLE = Idle(untrusted=100, trusted=1000, closing=10)


def mux(buckets: int = 256, slots: tuple[int, ...] = (0, 1, 2, 3), **ways: int) -> Machine:
    machine = Machine.make(buckets, **ways)
    machine.install_mux([Service(VIP, TCP, 80, slots, IDLE)], [Backend(bytes([10, 1, 0, at])) for at in range(8)])
    return machine


def send(machine: Machine, frames: list[bytes], now: int = 1) -> list[int]:
    """The backends that the frames went to."""
    batch = Frames(frames)
    machine.worker.forward(batch, now)
    assert (batch.verdict == Verdict.FORWARDED).all()
    return batch.target.tolist()


def clients(number: int, seed: int = 1, flags: int = ACK) -> list[bytes]:
    pick = random.Random(seed)
    return [
        Craft(source=pick.randbytes(4), source_port=pick.randint(1, 65535), flags=flags).frame() for _ in range(number)
    ]


def re_slot(machine: Machine, *slots: int, changed: int | None = None) -> None:
    """Another Maglev table, as after a change of backends: only flows with entries stay where they were.

    ``changed``: the slots' former backends stay known as their bases, since that time in ticks.
    """
    tables = machine.tables
    pairs = steady(np.array(slots, np.uint16))
    if changed is not None:
        pairs["base"] = tables.slots["backend"][: len(slots)]
        tables.services[0, 0]["changed"] = changed & 0xFFFFFFFF
    tables.slots[: len(slots)] = pairs
    tables.services[0, 0]["size"] = len(slots)


def forwarded(worker: Worker, craft: Craft, now: int) -> list[tuple[Verdict, int]]:
    batch = Frames([craft.frame()])
    worker.forward(batch, now)
    return [(verdict, target) for verdict, target, _ in batch.results()]
