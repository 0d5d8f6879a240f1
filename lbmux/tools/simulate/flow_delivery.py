"""Delivers the packets of a flow model: mux, backend, and what breaks on the way, compiled."""

from enum import IntEnum

import numpy as np

from lbmux.codegen.compiled import compiled_nogil
from lbmux.datapath.memory import step
from lbmux.tools.simulate.slot_rule import FIN, NONE, SYN, TCP, UDP, enter, enters, find, guess, mark, tracks

MUX = np.dtype([("live", "u1"), ("tables", "i4"), ("changed", "f8")], align=True)
"""``tables``: the number of earlier tables. ``changed``: the time of the last change."""


class Count(IntEnum):
    """The counters; each is an index in `Outcome.counts`."""

    TCP_BROKEN = 0
    TCP_BROKEN_SLEPT = 1
    SECOND_SYN = 2
    """Connections whose second SYN went to another backend than the first, whose SYN-ACK the client gets."""
    UDP_BROKEN = 3
    UDP_BROKEN_SLEPT = 4
    UDP_TO_DRAINED = 5
    SYN_TO_DRAINED = 6
    SECOND_CHANCES = 7
    SECOND_CHANCES_SLEPT = 8
    HOPS = 9


@step
def mux_of(flow, salt, muxes):  # type: ignore[no-untyped-def]
    """Return the mux that routers send the flow to."""
    live = 0
    for mux in range(len(muxes)):
        live += muxes[mux].live
    wanted = (((flow + 1) * (2 * salt + 1)) >> salt) % live
    for mux in range(len(muxes)):
        wanted -= muxes[mux].live
        if wanted < 0:
            return mux
    return 0


@compiled_nogil
def deliver(setting, packets, flows, entries, slots, muxes, earlier, alive, is_open, salt, counts):  # type: ignore[no-untyped-def]
    """Deliver packets in order."""
    for index in range(len(packets)):
        packet, flow = packets[index], flows[packets[index].flow]
        if flow.gone and packet.what != SYN:
            continue
        mux = mux_of(packet.flow, salt, muxes)
        slot, entry = slots[mux, flow.slot], entries[mux, packet.flow]
        newest = earlier[mux, 0, flow.slot] if muxes[mux].tables else NONE
        changed = muxes[mux].changed
        target = _target(setting[0], slot, entry, newest, flow, packet, alive, is_open, changed)
        idle_s = setting[0].idle_tcp_s if flow.kind == TCP else setting[0].idle_udp_s
        if packet.what == SYN:
            flow.slept = 0
        elif flow.began and packet.time - flow.seen > idle_s:
            flow.slept = 1
        if packet.what == SYN or flow.owner == NONE:
            _begin(flow, packet, target, alive, is_open, counts)
        elif not alive[flow.owner]:
            flow.gone = 1
        elif target != flow.owner:
            _misdelivered(setting[0], slots[mux], entry, earlier, mux, muxes, flow, packet, target, alive, counts)
        flow.seen, flow.began = packet.time, 1
        if packet.what == FIN:
            flow.gone, flow.owner = 1, NONE


@step
def _target(setting, slot, entry, newest, flow, packet, alive, is_open, changed):  # type: ignore[no-untyped-def]
    """Return the backend that a mux sends the packet to, with an entry where the policy wants one."""
    if not tracks(setting, slot, flow.kind):
        return slot.current
    target = find(setting, entry, packet.what, alive, packet.time)
    if target == NONE:
        target = guess(setting, slot, newest, flow.kind, packet.what, alive, is_open, changed, packet.time)
        if not enters(setting, slot, flow.kind):
            return target
        enter(entry, target, flow.kind, packet.time)
    entry.seen = packet.time
    if packet.what == FIN:
        entry.closing = 1
    return target


@step
def _begin(flow, packet, target, alive, is_open, counts):  # type: ignore[no-untyped-def]
    """Return the first packet of a connection, or a SYN again."""
    flow.gone = 0
    owner = flow.owner
    if packet.late and owner != NONE and owner != target and alive[owner]:
        counts[Count.SECOND_SYN] += 1
        flow.gone = 1
    elif packet.what == SYN and not is_open[target]:
        counts[Count.SYN_TO_DRAINED] += 1
    elif flow.kind == UDP and not is_open[target]:
        counts[Count.UDP_TO_DRAINED] += 1
    flow.owner = target


@step
def _misdelivered(setting, slots, entry, earlier, mux, muxes, flow, packet, target, alive, counts):  # type: ignore[no-untyped-def]
    """A packet has reached a backend that does not have its flow."""
    if flow.kind == UDP:
        counts[Count.UDP_BROKEN_SLEPT if flow.slept else Count.UDP_BROKEN] += 1
        flow.owner = target
    elif not setting.second_chance:
        counts[Count.TCP_BROKEN_SLEPT if flow.slept else Count.TCP_BROKEN] += 1
        flow.gone = 1
    else:
        counts[Count.SECOND_CHANCES_SLEPT if flow.slept else Count.SECOND_CHANCES] += 1
        counts[Count.HOPS] += _hops(setting, slots[flow.slot], earlier, mux, muxes, flow, target, alive)
        mark(slots[flow.slot], packet.time)
        enter(entry, flow.owner, flow.kind, packet.time)


@step
def _hops(setting, slot, earlier, mux, muxes, flow, first, alive):  # type: ignore[no-untyped-def]
    """Return the number of hosts asked until one has the connection: current, base, earlier tables, all."""
    known = min(setting.history, muxes[mux].tables)
    hops = 0
    for rank in range(2 + known + len(alive)):
        candidate = _candidate(slot, earlier, mux, flow.slot, known, rank)
        is_new = candidate != NONE and candidate != first and alive[candidate] != 0
        for before in range(rank):
            if is_new and _candidate(slot, earlier, mux, flow.slot, known, before) == candidate:
                is_new = False
        if is_new:
            hops += 1
            if candidate == flow.owner:
                return hops
    return hops


@step
def _candidate(slot, earlier, mux, at, known, rank):  # type: ignore[no-untyped-def]
    """Return the backend that is asked at a rank, or NONE."""
    if rank == 0:
        return slot.current
    if rank == 1:
        return slot.base
    if rank < 2 + known:
        return earlier[mux, rank - 2, at]
    return rank - 2 - known
