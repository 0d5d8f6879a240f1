"""A mux with one service and as many backends as a test needs, and flows through it."""

import random

from lbmux.datapath.verdicts import Verdict
from lbmux.targets.native import Worker
from tests.datapath.craft import ACK, Craft
from tests.datapath.harness import Frames, Machine
from tests.datapath.plain_flows import Idle
from tests.datapath.plain_mux import Backend, Service
from tests.datapath.plain_packet import TCP

VIP = Craft().destination
IDLE = Idle(untrusted=100, trusted=1000, closing=10)
PREVIOUS = 1000


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


def re_slot(machine: Machine, *slots: int, keep: bool = False) -> None:
    """Another Maglev table, as after a change of backends: only remembered flows stay where they were.

    ``keep``: the table before stays known.
    """
    tables, size = machine.tables, int(machine.tables.services[0, 0]["size"])
    if keep:
        tables.slots[PREVIOUS : PREVIOUS + size] = tables.slots[:size]
        tables.services[0, 0]["previous"] = PREVIOUS
    tables.slots[: len(slots)] = slots
    tables.services[0, 0]["size"] = len(slots)


def forwarded(worker: Worker, craft: Craft, now: int) -> list[tuple[Verdict, int]]:
    batch = Frames([craft.frame()])
    worker.forward(batch, now)
    return [(verdict, target) for verdict, target, _ in batch.results()]
