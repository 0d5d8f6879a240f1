"""The programs that record do what the others do, and what is in the ring is what came and what left."""

import os
from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np
import pytest

from lbmux.daemons.drivers import MOST_CPUS
from lbmux.datapath.prefilter import PREFILTER
from lbmux.datapath.tables import Sizes
from lbmux.datapath.verdicts import Verdict
from lbmux.targets.bpf import syscall, tapped_programs
from lbmux.targets.bpf.maps import KernelTables
from lbmux.targets.bpf.ring_buffer import Ring
from lbmux.targets.bpf.syscall import Attach, Loaded
from lbmux.targets.bpf.test_runs import on_first_cpu
from tests.datapath.craft import Craft, Stream
from tests.datapath.harness import Machine
from tests.datapath.test_mux import backends, destinations, services
from tests.targets.bpf.test_equal import ELSEWHERE, LOOPBACK, mux_action
from tests.targets.bpf.twins import ETHERNET_BYTES, Twins

pytestmark = pytest.mark.root
PROGRAMS = [("mux_xdp", Attach.XDP), ("agent_xdp", Attach.XDP), ("agent_tc", Attach.TCX_EGRESS)]
RING = tapped_programs.RING_SYMBOL + "frames"
RING_BYTES = 1 << 22
LEAST_BYTES, MOST = 14 + 20 + 4, tapped_programs.MOST_BYTES
"""A packet without ports cannot match: it is not recorded."""


class Beside:
    """What a program that records has beside the tables."""

    def __init__(self, workers: int) -> None:
        size = tapped_programs.PREFILTER_BYTES + workers * tapped_programs.BUDGET.itemsize
        self.table, self.ring = syscall.create_array("trace", size), Ring("frames", RING_BYTES)
        memory = np.frombuffer(syscall.map_value(self.table, size), np.uint8)
        self.prefilter = memory[: tapped_programs.PREFILTER_BYTES].view(PREFILTER)
        self.budget = memory[tapped_programs.PREFILTER_BYTES : size].view(tapped_programs.BUDGET)

    def load(self, kernel: KernelTables, name: str, place: Attach, clock: Mapping[str, int] | None = None) -> Loaded:
        program = f"{tapped_programs.__name__}:{name}"
        return kernel.load(program, place, clock, {"trace": self.table}, {RING: self.ring.fileno()})

    def records(self) -> list[tuple[np.void, bytes]]:
        return [
            (np.frombuffer(data, tapped_programs.RECORD, 1)[0], data[tapped_programs.RECORD_BYTES :])
            for data in self.ring.records()
        ]

    def close(self) -> None:
        self.ring.close()
        os.close(self.table)


class Watched(Twins):
    """Twins of which the kernel's records."""

    def __init__(self, machine: Machine) -> None:
        self.beside = Beside(machine.tables.sizes.workers)
        super().__init__(machine, {"mux_xdp": Attach.XDP})

    def load(self, name: str, place: Attach, clock: Mapping[str, int]) -> Loaded:
        return self.beside.load(self.kernel, name, place, clock)

    def __exit__(self, *error: object) -> None:
        super().__exit__()
        self.beside.close()


@pytest.fixture(autouse=True)
def _one_cpu() -> Iterator[None]:
    with on_first_cpu():
        yield


@pytest.fixture
def mux() -> Iterator[Watched]:
    machine = Machine.make(16, plain=True)
    machine.install_mux(services(), backends())
    machine.tables.backends["interface"][:3] = 0, LOOPBACK, ELSEWHERE
    with Watched(machine) as twins:
        yield twins


def some_frames(count: int) -> list[bytes]:
    return [frame for frame in islice(Stream(5, destinations()).frames(), count) if len(frame) >= ETHERNET_BYTES]


@pytest.mark.parametrize(("name", "place"), PROGRAMS)
def test_loads_for_many_cpus(name: str, place: Attach) -> None:
    beside = Beside(MOST_CPUS + 1)
    with KernelTables.create(Sizes(buckets=1 << 12, workers=MOST_CPUS + 1, endpoints=1024)) as kernel:
        os.close(beside.load(kernel, name, place).descriptor)
    beside.close()


def test_acts_like_the_usual_program_and_records_it(mux: Watched) -> None:
    mux.beside.prefilter["sent"] = mux.beside.prefilter["dropped"] = 1
    met, frames = set[Verdict](), some_frames(4000)
    for start in range(0, len(frames), 200):
        some = frames[start : start + 200]
        mux.beside.budget["left"] = len(some)
        runs, batch = mux.run("mux_xdp", some)
        expected = list[tuple[int, int, bytes]]()
        said = zip(some, runs, batch.results(), batch.interface.tolist(), strict=True)
        for frame, run, (verdict, target, after), interface in said:
            assert (run.result, run.frame) == (mux_action(verdict, interface), after), frame.hex()
            met.add(verdict)
            if len(frame) < LEAST_BYTES:
                continue
            expected.append((0, -1, frame[:MOST]))
            if verdict.kind != "pass":
                expected.append((int(verdict), target, after[:MOST]))
        recorded = [
            (int(head["verdict"]), int(head["target"]), data[: int(head["length"])])
            for head, data in mux.beside.records()
        ]
        assert recorded == expected
    mux.assert_same_tables()
    assert {Verdict.FORWARDED, Verdict.DENIED, Verdict.NO_BACKEND, Verdict.NOT_VIP} <= met


def test_records_no_more_than_is_allowed(mux: Watched) -> None:
    mux.beside.prefilter["sent"] = 1
    mux.beside.budget["left"] = 3
    mux.run("mux_xdp", [Craft(destination=destinations()[0][0], source_port=4000).frame()] * 10)
    assert len(mux.beside.records()) == 6
    assert (int(mux.beside.budget["left"][0]), int(mux.beside.budget["skipped"][0])) == (0, 7)


def test_a_full_ring_loses_records_only(mux: Watched) -> None:
    mux.beside.prefilter["sent"] = 1
    mux.beside.budget["left"] = 1 << 20
    frame = Craft(destination=destinations()[0][0], source_port=4000).frame()
    runs, _ = mux.run("mux_xdp", [frame] * 3000)
    assert {run.result for run in runs} == {runs[0].result}
    assert 100 < len(mux.beside.records()) <= RING_BYTES // tapped_programs.MOST_BYTES
    mux.assert_same_tables()
