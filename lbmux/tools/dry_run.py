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

RESULTS = ("parsed", "service", "allowed", "hash", "size", "slot", "selected", "flow_hash", "sources")
ENTRY = ("state", "target", "idle", "alive")


@intrinsic
def _distance(typing: Any, pointer: Any, start: Any) -> Any:
    """Bytes from ``start`` to ``pointer``."""

    def lower(lowering: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.sub(*(builder.ptrtoint(value, ir.IntType(64)) for value in args))

    return types.int64(Pointer, Pointer), lower


@compiled
def dry_run(context_address, address, length, now, results, entry):  # type: ignore[no-untyped-def]
    """Write RESULTS to ``results`` and, if the flow has an entry, ENTRY to ``entry``.

    ``results``: int64[len(RESULTS)].  ``entry``: int64[len(ENTRY)].  Values that are not reached stay unchanged.
    """
    context, record = context_at(context_address), context_row(at_address(context_address), 0)
    record.frame, record.end = address, address + u64(length)
    packet = parse(context, frame(context), frame_end(context))
    results[0] = packet.verdict
    if packet.verdict == PARSED:
        with_service(context, packet, unchecked, _record, (results, entry, u64(now)))


@step
def _record(context, setting, packet, index, service, arguments):  # type: ignore[no-untyped-def]
    """Record what the steps after the match find."""
    results, entry, now = arguments
    high, low, ports = packet.source_high, packet.source_low, packet.ports
    results[1] = index
    results[2] = allowed(context, service, high, low)
    results[3] = slot_hash(service, packet)
    results[4] = service.size
    results[5] = scale(np.uint32(results[3]), service.size)
    results[6] = select(context, service, packet)
    hashed = flow_hash(setting, high, low, ports, packet.destination_low)
    results[7] = hashed
    results[8] = line_of(context, source_hash(setting, packet, index))
    bucket, way, word = lookup(context, hashed, high, low, ports, index)
    if way >= 0:
        row, backend = entry_row(bucket, way & (WAYS - 1)), backend_row(backends(context), target_of(word))
        entry[0], entry[1], entry[2] = state_of(word), target_of(word), idle_for(row, now)
        entry[3] = is_alive(word, row, backend, service, now)
    return int64(PARSED), int64(-1)


@compiled
def bucket_offsets(context_address, hashed, results):  # type: ignore[no-untyped-def]
    """Write the byte offsets of the two buckets for a flow hash to ``results``, int64[2]."""
    context, first = context_at(context_address), np.uint32(hashed)
    results[0] = _distance(bucket_at(context, first), flows(context))
    results[1] = _distance(bucket_at(context, second_hash(first)), flows(context))
