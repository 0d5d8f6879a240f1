"""Run the data path's steps up to the selection of a backend without side effects, and record each result.

``datapath.mux.with_service`` takes a packet there, as in ``datapath.mux.forward``; a step here records what the next
steps find.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lbmux.codegen.compiled import compiled
from lbmux.datapath.access import allowed, unchecked
from lbmux.datapath.choose import select, slot_hash
from lbmux.datapath.context import backends, context_at, flows
from lbmux.datapath.flow_lookup import (
    bucket_at,
    flow_hash,
    idle_for,
    is_alive,
    lookup,
    second_hash,
    state_of,
    target_of,
)
from lbmux.datapath.frame import frame, frame_end
from lbmux.datapath.hashing import scale
from lbmux.datapath.known_sources import line_of, source_hash
from lbmux.datapath.memory import Pointer, at_address, int64, step, u64
from lbmux.datapath.mux import with_service
from lbmux.datapath.parse import PARSED, parse
from lbmux.datapath.tables import WAYS, backend_row, entry_row
from lbmux.targets.native import context_row

FOUND = ("parsed", "service", "allowed", "hash", "size", "slot", "selected", "flow_hash", "sources")
ENTRY = ("state", "target", "idle", "alive")


@intrinsic
def _distance(typing: Any, pointer: Any, start: Any) -> Any:
    """Bytes from ``start`` to ``pointer``."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.sub(*(builder.ptrtoint(value, ir.IntType(64)) for value in args))

    return types.int64(Pointer, Pointer), lower


@compiled
def dry_run(context_address, address, length, now, found, entry):  # type: ignore[no-untyped-def]
    """Write FOUND to ``found`` and, if the flow has an entry, ENTRY to ``entry``.

    ``found``: int64[len(FOUND)].  ``entry``: int64[len(ENTRY)].  Values that are not reached stay unchanged.
    """
    context, record = context_at(context_address), context_row(at_address(context_address), 0)
    record.frame, record.end = address, address + u64(length)
    packet = parse(context, frame(context), frame_end(context))
    found[0] = packet.verdict
    if packet.verdict == PARSED:
        with_service(context, packet, unchecked, _record, (found, entry, u64(now)))


@step
def _record(context, setting, packet, index, service, arguments):  # type: ignore[no-untyped-def]
    """Record what the steps after the match find."""
    found, entry, now = arguments
    high, low, ports = packet.source_high, packet.source_low, packet.ports
    found[1] = index
    found[2] = allowed(context, service, high, low)
    found[3] = slot_hash(service, packet)
    found[4] = service.size
    found[5] = scale(np.uint32(found[3]), service.size)
    found[6] = select(context, service, packet)
    hashed = flow_hash(setting, high, low, ports, packet.destination_low)
    found[7] = hashed
    found[8] = line_of(context, source_hash(setting, packet, index))
    bucket, way, word = lookup(context, hashed, high, low, ports, index)
    if way >= 0:
        row, backend = entry_row(bucket, way & (WAYS - 1)), backend_row(backends(context), target_of(word))
        entry[0], entry[1], entry[2] = state_of(word), target_of(word), idle_for(row, now)
        entry[3] = is_alive(word, row, backend, service, now)
    return int64(PARSED), int64(-1)


@compiled
def bucket_offsets(context_address, hashed, found):  # type: ignore[no-untyped-def]
    """Write the byte offsets of the two buckets for a flow hash to ``found``, int64[2]."""
    context, first = context_at(context_address), np.uint32(hashed)
    found[0] = _distance(bucket_at(context, first), flows(context))
    found[1] = _distance(bucket_at(context, second_hash(first)), flows(context))
