"""The native target: runs the data path over batches of frames in this process's memory.

The AF_PACKET mux, the agent's TUN driver, replay, tests and benchmarks use it. A batch is a few parallel arrays
(lbmux.frames.batch). Frames are rewritten in place and grow into the headroom before them.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import address_of, compiled
from lbmux.datapath import agent, mux
from lbmux.datapath.context import CONTEXT, LIMITS, TABLES, context_at
from lbmux.datapath.flow_lookup import anticipate
from lbmux.datapath.headers import TYPE_IPV6, ethernet, ipv4, ipv6, udp
from lbmux.datapath.memory import at_address, rows, step
from lbmux.datapath.parse import mapped
from lbmux.datapath.verdicts import Verdict
from lbmux.targets.regions import Tables
from lbmux.wire.header_layouts import ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, UDP_BYTES

HEADROOM_BYTES = 64
"""The most bytes that a frame may grow by: two outer headers and options of the largest encapsulation."""

context_row = rows(CONTEXT)
FORWARDED = int(Verdict.FORWARDED)
AHEAD = 8
"""How many frames ahead a flow's bucket is prefetched."""
TRANSPORT, TRANSPORT_IPV6 = ETHERNET_BYTES + IPV4_BYTES, ETHERNET_BYTES + IPV6_BYTES


class Batch(Protocol):
    """Frames in memory: address, length and verdict of each (see lbmux.frames.batch)."""

    address: NDArray[np.uint64]
    length: NDArray[np.uint32]
    verdict: NDArray[np.uint8]
    flags: NDArray[np.uint8]
    interface: NDArray[np.uint32]
    target: NDArray[np.int32]
    count: int


class Worker:
    """One user of the tables, with its own counters."""

    def __init__(self, tables: Tables, number: int = 0, plain: bool = False) -> None:
        """``plain`` restricts the worker to what the kernel target does. The rest is punted."""
        self.tables = tables
        self._context = np.zeros(1, CONTEXT)
        for name in TABLES:
            self._context[f"{name}_table"] = tables.memory[name].ctypes.data
        for name in LIMITS:
            self._context[f"{name}_limit"] = getattr(tables.sizes, name)
        self._context["worker"], self._context["plain"] = number, plain
        self.number = number
        self.address = address_of(self._context)
        """The CONTEXT record's address, for compiled code that works on these tables."""

    def forward(self, batch: Batch, now: int) -> None:
        """Run the mux over a batch. ``now`` is in ticks. This sets verdicts, targets, addresses and lengths."""
        self._run(_forward, batch, now)

    def inbound(self, batch: Batch, now: int) -> None:
        """Run the agent over a batch of inbound frames. Delivered frames are decapsulated."""
        self._run(_inbound, batch, now)

    def outbound(self, batch: Batch, now: int) -> None:
        """Run the agent over a batch of outbound frames. Translated replies have the VIP as their source."""
        self._run(_outbound, batch, now)

    def _run(self, function: Any, batch: Batch, now: int) -> None:
        self._context["now"] = now
        function(
            self.address, batch.address, batch.length, batch.verdict, batch.flags, batch.interface, batch.target,
            batch.count,
        )  # fmt: skip


@step
def _anticipate(context, address, length):
    """Prefetch the flow's bucket, assuming the usual header offsets. A wrong guess costs only the prefetch."""
    if length >= TRANSPORT_IPV6 + UDP_BYTES and ethernet(at_address(address), 0).type == TYPE_IPV6:
        start = at_address(address)
        ip6, ports = ipv6(start, ETHERNET_BYTES), udp(start, TRANSPORT_IPV6).ports
        anticipate(context, ip6.source_high, ip6.source_low, ports, ip6.destination_low)
    elif length >= TRANSPORT + UDP_BYTES:
        start = at_address(address)
        ip = ipv4(start, ETHERNET_BYTES)
        anticipate(context, np.uint64(0), mapped(ip.source), udp(start, TRANSPORT).ports, mapped(ip.destination))


@step
def enter(record, address, length, flags, interface):
    record.frame, record.end, record.floor = address, address + np.uint64(length), address - np.uint64(HEADROOM_BYTES)
    record.flags, record.arrived = flags, interface


@compiled
def _forward(context_address, address, length, verdict, flags, interface, target, count):
    context, record = context_at(context_address), context_row(at_address(context_address), 0)
    for index in range(count):
        if index + AHEAD < count:
            _anticipate(context, address[index + AHEAD], length[index + AHEAD])
        enter(record, address[index], length[index], flags[index], interface[index])
        verdict[index], target[index], leaves_by = mux.run(context)
        if verdict[index] == FORWARDED:
            interface[index] = leaves_by
        address[index], length[index] = record.frame, record.end - record.frame


@compiled
def _inbound(context_address, address, length, verdict, flags, interface, target, count):
    context, record = context_at(context_address), context_row(at_address(context_address), 0)
    for index in range(count):
        enter(record, address[index], length[index], flags[index], interface[index])
        verdict[index], target[index] = agent.run_inbound(context)
        address[index], length[index] = record.frame, record.end - record.frame


@compiled
def _outbound(context_address, address, length, verdict, flags, interface, target, count):
    context, record = context_at(context_address), context_row(at_address(context_address), 0)
    for index in range(count):
        enter(record, address[index], length[index], flags[index], interface[index])
        verdict[index], target[index] = agent.run_outbound(context)
