"""Scenarios of `lbmux simulate flows`: changes of a service's backends, and packets of TCP and UDP flows.

Flows have all kinds of gaps: busy, slow, nearly always silent.  A few sleep longer than the idle time, and a few TCP
clients send a second SYN because the SYN-ACK is late or lost.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import compiled_nogil
from lbmux.datapath.memory import step
from lbmux.tools.simulate.flow_policies import IDLE_TCP_S, IDLE_UDP_S
from lbmux.tools.simulate.random_numbers import below, exponential, state_of, uniform
from lbmux.tools.simulate.slot_rule import FIN, MID, SYN, TCP, UDP

KINDS = {
    "planned": "backends are added, drained, reweighted, and come back",
    "all": "backends die and are removed as well",
    "syn": "as all, with 300 connections that begin in the second before each change and send a second SYN",
    "mux": "as all, and one of two muxes is lost",
    "restart": "as mux, and a fresh one takes its place",
    "reseed": "as all, and routers spread flows over the muxes differently, twice",
}
SLOTS, MUXES, BACKENDS = 251, 2, 12
WARM_S, END_S = 120.0, 900.0
"""Events begin after the first, packets end at the second."""
FRESH = 100
"""The number of the first backend that is added; numbers of backends are below MOST_BACKENDS."""
MOST_BACKENDS = 128
FLOWS_PER_S = 6.0
BURST_FLOWS = 300
WEIGHT = 10
LEAST_UP = 6

PACKET = np.dtype([("time", "f8"), ("flow", "i4"), ("what", "u1"), ("late", "u1")], align=True)
"""``late``: of a second SYN, whether the first SYN-ACK is what the client gets."""
FLOW = np.dtype(
    [
        ("slot", "i4"), ("kind", "u1"), ("owner", "i4"), ("gone", "u1"), ("slept", "u1"), ("began", "u1"),
        ("seen", "f8"),
    ],
    align=True,
)  # fmt: skip
"""``owner``: the backend that has the flow, or NONE.  ``gone``: it has ended, or is broken."""


@dataclass(frozen=True)
class Event:
    """``what``: add, drain, reweight, remove, die; lose, start (of a mux), reseed."""

    time: float
    what: str
    backend: int = 0
    value: int = 0


@dataclass(frozen=True)
class Scenario:
    """``flows``: shape (flows,), as before their first packet.  ``packets``: sorted by time."""

    kind: str
    events: tuple[Event, ...]
    flows: NDArray[Any]
    packets: NDArray[Any]

    @property
    def moves_flows(self) -> bool:
        """Whether flows come to muxes that have not seen them before."""
        return self.kind in ("mux", "restart", "reseed")


def scenario(kind: str, seed: int) -> Scenario:
    """Return one of KINDS, with the random numbers of ``seed``."""
    events = events_of(kind, seed)
    bursts = [event.time for event in events] if kind == "syn" else []
    flows, packets = traffic(np.random.default_rng([seed, *kind.encode()]), bursts)
    return Scenario(kind, events, flows, packets)


def events_of(kind: str, seed: int) -> tuple[Event, ...]:
    """Return the scenario's events in order."""
    rng = random.Random(f"{kind} {seed}")
    events = list(_backend_events(kind, rng))
    lost_at = rng.uniform(WARM_S + 1, events[-1].time + 60)
    if kind == "reseed":
        events += [Event(lost_at, "reseed", value=1), Event(lost_at + 100, "reseed", value=2)]
    if kind in ("mux", "restart"):
        mux = rng.randrange(MUXES)
        events.append(Event(lost_at, "lose", value=mux))
        if kind == "restart":
            events.append(Event(lost_at + rng.choice((1.0, 30.0)), "start", value=mux))
    return tuple(sorted(events, key=lambda event: event.time))


def _backend_events(kind: str, rng: random.Random) -> Iterator[Event]:
    """Return three to eight changes, from one to 130 seconds apart."""
    kinds: tuple[str, ...] = ("add", "drain", "reweight", "undrain")
    if kind != "planned":
        kinds = (*kinds, "die", "remove")
    up, drained, now = list(range(BACKENDS)), list[int](), WARM_S
    for number in range(rng.randint(3, 8)):
        what = rng.choice(kinds)
        if what == "add":
            up.append(FRESH + number)
            yield Event(now, "add", FRESH + number)
        elif what == "undrain" and drained:
            up.append(drained.pop())
            yield Event(now, "reweight", up[-1], WEIGHT)
        elif what in ("drain", "die", "remove") and len(up) > LEAST_UP:
            backend = up.pop(rng.randrange(len(up)))
            yield Event(now, what, backend)
            if what == "drain":
                drained.append(backend)
        else:
            yield Event(now, "reweight", rng.choice(up), rng.choice((1, 5, 20, 10)))
        now += rng.choice((1.0, 1.0, 3.0, 20.0, 70.0, 130.0))


def traffic(rng: np.random.Generator, bursts: list[float]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return flows and packets; ``bursts``: times before which BURST_FLOWS connections begin."""
    state, count = state_of(rng), -1
    flows = np.zeros(int(2 * END_S * FLOWS_PER_S) + BURST_FLOWS * len(bursts), FLOW)
    packets = np.zeros(1 << 18, PACKET)
    while count < 0:
        begun = state.copy()
        used, count = _fill(begun, np.array(bursts, np.float64), flows, packets)
        if count < 0:
            packets = np.zeros(2 * len(packets), PACKET)
    packets = packets[:count]
    flows = flows[:used]
    flows["owner"], flows["seen"] = -1, -np.inf
    return flows, packets[np.argsort(packets["time"], kind="stable")]


@compiled_nogil
def _fill(state, bursts, flows, packets):  # type: ignore[no-untyped-def]
    """Write flows and packets; return their numbers, or -1 for the packets if they do not fit."""
    now, used, count = 0.0, 0, 0
    while now < END_S - 60 and used < len(flows) - BURST_FLOWS * len(bursts):
        now += exponential(state, 1 / FLOWS_PER_S)
        flows[used].slot = below(state, SLOTS)
        flows[used].kind = TCP if uniform(state) < 0.7 else UDP
        again = flows[used].kind == TCP and uniform(state) < 0.05  # a reused port
        began = now
        for _ in range(2 if again else 1):
            began, count = _connection(state, flows[used].kind, used, began, 0.03, packets, count)
            if count < 0:
                return used, -1
            began += 0.5 + 4.5 * uniform(state)
        used += 1
    for burst in bursts:
        for _ in range(BURST_FLOWS):
            flows[used].slot, flows[used].kind = below(state, SLOTS), TCP
            _, count = _connection(state, TCP, used, burst - uniform(state), 1.0, packets, count)
            if count < 0:
                return used, -1
            used += 1
    return used, count


@step
def _connection(state, kind, flow, now, again, packets, count):  # type: ignore[no-untyped-def]
    """Write a connection's packets; return when it ended, and the number of packets, or -1 if they do not fit."""
    count = _packet(packets, count, now, flow, SYN if kind == TCP else MID, 0)
    if kind == TCP and uniform(state) < again:  # the SYN-ACK is late or lost: the client sends again
        now += 1.0
        count = _packet(packets, count, now, flow, SYN, uniform(state) < 0.5)
    pace, life = _pace(below(state, 5))
    end = now + exponential(state, life)
    limit = (IDLE_TCP_S if kind == TCP else IDLE_UDP_S) * (1.1 if uniform(state) < 0.02 else 0.98)
    while now < end and now < END_S:
        now += min(exponential(state, pace) + 0.02, limit)
        count = _packet(packets, count, now, flow, MID, 0)
    if kind == TCP:
        now += 0.05
        count = _packet(packets, count, now, flow, FIN, 0)
    return now, count


@step
def _pace(which):  # type: ignore[no-untyped-def]
    """Return the mean gap between packets and the mean length of a connection, in seconds."""
    if which == 0:
        return 0.5, 8.0
    if which == 1:
        return 1.0, 60.0
    if which == 2:
        return 20.0, 400.0
    return (45.0, 800.0) if which == 3 else (150.0, 2000.0)


@step
def _packet(packets, count, now, flow, what, late):  # type: ignore[no-untyped-def]
    if count < 0 or count >= len(packets):
        return -1
    if now >= END_S:
        return count
    packets[count].time, packets[count].flow, packets[count].what, packets[count].late = now, flow, what, late
    return count + 1
