"""One input of the fuzzer: a frame, through compiled code, its plain twin and, where we may, the kernel's program.

The first byte says which way (mux, agent's way in, its way out) and which flags; the rest is the frame.  Each frame
ends where a page without access begins, so that a read behind its end is a crash; memory before it is looked at
afterwards.  ``Judge.check`` raises AssertionError where the three do not agree.
"""

import ctypes
import mmap
import os
from contextlib import ExitStack, suppress

import numpy as np

from lbmux.datapath.frame import KNOWN_LOCAL, UNFINISHED_CHECKSUM
from lbmux.datapath.verdicts import Verdict
from lbmux.targets.bpf.syscall import Attach, BpfError
from lbmux.targets.bpf.test_runs import TestRunner
from lbmux.targets.bpf.xdp_programs import TCX_DROP, TCX_NEXT, XDP_DROP, XDP_PASS, XDP_TX
from lbmux.targets.native import HEADROOM_BYTES, Worker
from tests.datapath.agent_pair import MUXES, OWN, endpoints
from tests.datapath.harness import GUARD, Machine
from tests.datapath.plain_agent import PlainAgent
from tests.datapath.plain_flows import PlainFlows
from tests.datapath.plain_mux import PlainMux
from tests.datapath.test_mux import backends, services
from tests.targets.bpf.twins import Twins

BUCKETS, MOST_BYTES = 16, 4096
PROT_NONE, PROT_READ_WRITE = 0, 3
NOW = 1000
WAYS = ("mux", "inbound", "outbound")
PROGRAMS = {"mux": "mux_xdp", "inbound": "agent_xdp", "outbound": "agent_tc"}
LEAST_BYTES = {"mux": 14, "inbound": 14, "outbound": 54}
"""What a test run takes: of a tc program a whole IP header."""


class GuardedBatch:
    """One frame whose end is the end of the memory that may be read."""

    def __init__(self) -> None:
        page = mmap.PAGESIZE
        self._memory = mmap.mmap(-1, 4 * page)
        self._bytes = np.frombuffer(self._memory, np.uint8)
        self._end = 3 * page
        address = self._bytes.ctypes.data
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(address + self._end), ctypes.c_size_t(page), PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")
        self.count = 1
        self.address, self.length = np.zeros(1, np.uint64), np.zeros(1, np.uint32)
        self.verdict, self.flags = np.zeros(1, np.uint8), np.zeros(1, np.uint8)
        self.interface, self.target = np.zeros(1, np.uint32), np.zeros(1, np.int32)

    def put(self, frame: bytes, flags: int) -> None:
        self._start = self._end - len(frame)
        self._bytes[: self._end] = GUARD
        self._bytes[self._start : self._end] = np.frombuffer(frame, np.uint8)
        self.address[0], self.length[0] = self._bytes.ctypes.data + self._start, len(frame)
        self.flags[0], self.target[0] = flags, -1

    def result(self) -> tuple[Verdict, int, bytes]:
        start = int(self.address[0]) - self._bytes.ctypes.data
        frame = self._bytes[start : start + int(self.length[0])].tobytes()
        return Verdict(int(self.verdict[0])), int(self.target[0]), frame

    def untouched(self) -> bool:
        """Nothing was written before the room that a frame may grow into."""
        return bool((self._bytes[: self._start - HEADROOM_BYTES] == GUARD).all())


class Judge:
    """``kernel``: with the kernel's programs as the third; needs CAP_BPF."""

    def __init__(self, kernel: bool = False) -> None:
        mux, agent = Machine.make(BUCKETS), Machine.make(BUCKETS)
        mux.install_mux(services(), backends())
        agent.install_agent(OWN, MUXES, endpoints(checks_sockets=True))
        self._machines = {"mux": mux, "inbound": agent, "outbound": agent}
        self._plain_mux = PlainMux(services(), backends(), PlainFlows(mux.keys, BUCKETS))
        self._plain_agent = PlainAgent(OWN, MUXES, endpoints(checks_sockets=True), PlainFlows(agent.keys, BUCKETS))
        self._batch, self._stack = GuardedBatch(), ExitStack()
        self._kernel: dict[str, tuple[TestRunner, Worker]] = {}
        if kernel:
            self._load()

    def _load(self) -> None:
        """The same tables once more for the kernel, and native ones that do only what the kernel does."""
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        for ways, attach in ((("mux",), {"mux_xdp": Attach.XDP}), (("inbound", "outbound"), AGENT)):
            machine = Machine.make(BUCKETS, plain=True)
            if "mux" in ways:
                machine.install_mux(services(), backends())
            else:
                machine.install_agent(OWN, MUXES, endpoints(checks_sockets=True))
            twins = self._stack.enter_context(Twins(machine, attach, NOW))
            for way in ways:
                self._kernel[way] = (TestRunner(twins.loaded[PROGRAMS[way]].descriptor), machine.worker)

    def close(self) -> None:
        self._stack.close()

    def check(self, data: bytes) -> None:
        if not data:
            return
        way, frame = WAYS[data[0] % 3], data[1 : 1 + MOST_BYTES]
        flags = (KNOWN_LOCAL if way == "inbound" else UNFINISHED_CHECKSUM) * (data[0] >> 7)
        seen = self._native(self._machines[way].worker, way, frame, flags)
        if way == "mux":
            expected = self._plain_mux.run(frame, NOW, flags)
        elif way == "inbound":
            expected = self._plain_agent.inbound(frame, NOW, flags)
        else:
            expected = self._plain_agent.outbound(frame, NOW)
        assert seen == expected, f"{way} {frame.hex()}: {seen} is not {expected}"
        if self._kernel and not flags and len(frame) >= LEAST_BYTES[way]:
            self._check_kernel(way, frame)

    def _native(self, worker: Worker, way: str, frame: bytes, flags: int) -> tuple[Verdict, int, bytes]:
        self._batch.put(frame, flags)
        step = {"mux": worker.forward, "inbound": worker.inbound, "outbound": worker.outbound}[way]
        step(self._batch, NOW)
        assert self._batch.untouched(), f"{way} {frame.hex()}: wrote before its headroom"
        return self._batch.result()

    def _check_kernel(self, way: str, frame: bytes) -> None:
        runner, worker = self._kernel[way]
        verdict, _, after = self._native(worker, way, frame, 0)
        with suppress(BpfError):  # the kernel refuses these frames in a test run
            run = runner.run(frame)
            actions = {"send": XDP_TX if way == "mux" else XDP_PASS, "pass": XDP_PASS, "drop": XDP_DROP}
            if way == "outbound":
                actions = {"send": TCX_NEXT & 0xFFFFFFFF, "pass": TCX_NEXT & 0xFFFFFFFF, "drop": TCX_DROP}
            expected = (actions[verdict.kind], after)
            assert (run.result, run.frame) == expected, f"{way} {frame.hex()}: {run} is not {expected}, {verdict.label}"

    def check_tables(self) -> None:
        """Flow entries agree as well."""
        for plain, way in ((self._plain_mux, "mux"), (self._plain_agent, "inbound")):
            assert plain.flows.differences(self._machines[way].tables.flows) == []


AGENT = {"agent_xdp": Attach.XDP, "agent_tc": Attach.TCX_EGRESS}
