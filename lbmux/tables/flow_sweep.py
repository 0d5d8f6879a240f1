"""Compares the flow table with the slots of the Maglev tables, off the packet path.

A slot with exceptions is steady again once no entry deviates from its backend, and a service that tracks changes only
needs no entry in a steady slot. This runs in a thread, in compiled code that releases the interpreter's lock.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import address_of, compiled_nogil
from lbmux.datapath.choose import slot_hash
from lbmux.datapath.context import backend_limit, backends, context_at, service_limit, settings, slots
from lbmux.datapath.flow_lookup import delete, generation_of, idle_for, state_of, target_of
from lbmux.datapath.hashing import scale
from lbmux.datapath.memory import at_address, int64, layout, rows, step, u16, u64
from lbmux.datapath.mux import active_service
from lbmux.datapath.parse import PARSED, Packet
from lbmux.datapath.tables import (
    CLOSING,
    GONE,
    TRACK_ALL,
    VIP,
    backend_row,
    entry_row,
    settings_row,
    slot_row,
)
from lbmux.tables.mux_tables import MuxTables
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables

SWEEP_S = 5.0
"""Seconds between two sweeps."""
DESTINATION = layout(("high", "u8"), ("low", "u8"), ("protocol", "u8"), ("family", "u8"))
"""The part of a flow that its entry lacks: the VIP, from the service's row. ``family`` 0: the service has no VIP."""
destination_row, flag_row = rows(DESTINATION), rows(layout(("value", "u1")))


def sweep(mux: MuxTables, now: int) -> None:
    """Settle the slots that have been changing for long enough, and make slots without exceptions steady.

    ``now`` is in ticks.

    A slot gets exceptions in one sweep and is steady in the next one at the earliest: an entry that the data path makes
    by the slot's base at this moment is found then.
    """
    if mux.slots.has_exceptions():
        mux.slots.end_exceptions(deviating(mux.tables, now))
        drop_needless(mux.tables)
    mux.settle(now)


def deviating(tables: Tables, now: int) -> NDArray[np.bool_]:
    """Return for each slot of the region whether a live flow's entry names another backend than the slot.

    ``now`` is in ticks. The array's memory is used only where a flow deviates.
    """
    flags = np.zeros(len(tables.slots), np.bool_)
    worker, destinations = Worker(tables), _destinations(tables)
    _find_deviating(
        worker.address, address_of(tables.flows), tables.flows.size, address_of(destinations), now, address_of(flags),
        len(flags),
    )  # fmt: skip
    return flags


def drop_needless(tables: Tables) -> int:
    """Delete the entries in steady slots of services that track changes only. Return the number of deleted entries."""
    worker, destinations = Worker(tables), _destinations(tables)
    return int(_drop(worker.address, address_of(tables.flows), tables.flows.size, address_of(destinations)))


def warm_up(tables: Tables) -> None:
    """Compile the functions, or load them from the cache."""
    worker, destinations, flags = Worker(tables), _destinations(tables), np.zeros(1, np.bool_)
    _find_deviating(worker.address, np.uint64(0), 0, address_of(destinations), 0, address_of(flags), 0)
    _drop(worker.address, np.uint64(0), 0, address_of(destinations))


def _destinations(tables: Tables) -> NDArray[Any]:
    destinations = np.zeros(tables.sizes.services, DESTINATION)
    entries = tables.addresses[tables.active]
    entries = entries[entries["kind"] == VIP]
    at = entries["index"]
    for field in ("high", "low", "protocol"):
        destinations[field][at] = entries[field]
    destinations["family"][at] = np.where(
        (entries["high"] == 0) & (entries["low"] & np.uint64(0xFFFFFFFF) == MAPPED), 4, 6
    )
    return destinations


MAPPED = np.uint64(0xFFFF0000)
"""The first half of the lower 64 bits of an IPv4-mapped address, as loaded (RFC 4291, section 2.5.5.2)."""


@step
def _slot_of(service, entry, destination):  # type: ignore[no-untyped-def]
    """Return the slot of the flow of an entry, or -1 if its service has no table."""
    if destination.family == u64(0) or service.size == 0:
        return int64(-1)
    packet = Packet(
        int64(PARSED), int64(destination.family), entry.high, entry.low, destination.high, destination.low, entry.ports,
        int64(destination.protocol), int64(0), int64(0), int64(0),
    )  # fmt: skip
    return int64(service.slots) + scale(slot_hash(service, packet), service.size)


@step
def _may_be_alive(entry, word, backend, service, now):  # type: ignore[no-untyped-def]
    """Return whether a packet of the flow may still come. A single packet makes an entry untrusted, not short-lived."""
    if backend.state == GONE or int64(backend.generation) != generation_of(word):
        return False
    limit = service.idle_closing if state_of(word) == CLOSING else service.idle_trusted
    return idle_for(entry, now) <= int64(limit)


@compiled_nogil
def _find_deviating(context_address, flows, count, destinations, now, flags, slot_count):  # type: ignore[no-untyped-def]
    context = context_at(context_address)
    setting = settings_row(settings(context), 0)
    for place in range(count):
        entry = entry_row(at_address(flows), place)
        word = entry.word
        owner, target = int64(u16(word)), target_of(word)
        if state_of(word) == 0 or owner >= service_limit(context) or target >= backend_limit(context):
            continue
        service = active_service(context, setting, owner)
        slot = _slot_of(service, entry, destination_row(at_address(destinations), owner))
        if slot < 0 or slot >= slot_count or int64(slot_row(slots(context), slot).backend) == target:
            continue
        if _may_be_alive(entry, word, backend_row(backends(context), target), service, u64(now)):
            flag_row(at_address(flags), slot).value = 1


@compiled_nogil
def _drop(context_address, flows, count, destinations):  # type: ignore[no-untyped-def]
    context, dropped = context_at(context_address), 0
    setting = settings_row(settings(context), 0)
    for place in range(count):
        entry = entry_row(at_address(flows), place)
        word = entry.word
        owner = int64(u16(word))
        if state_of(word) == 0 or owner >= service_limit(context):
            continue
        service = active_service(context, setting, owner)
        slot = _slot_of(service, entry, destination_row(at_address(destinations), owner))
        if slot < 0 or service.tracking == TRACK_ALL:
            continue
        pair = slot_row(slots(context), slot)
        if pair.backend == pair.base:
            dropped += delete(at_address(flows), place, word)
    return dropped
