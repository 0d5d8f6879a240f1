"""Compiled look-ups of a flow in the data path's tables, for the slow path.

They call the data path's own steps in its own order: ``datapath.mux.with_service`` finds the service of the flow's
packet, and a step here does the rest. The packet has no frame, because the slow path knows the flow from an ICMP quote
or from the first fragment.

The arguments of each function begin with the address of a context (lbmux.targets.native), and continue with the flow:
client and VIP as 128-bit halves as loaded, both ports as loaded, the protocol, and the family (4 or 6).
"""

from lbmux.codegen.compiled import compiled
from lbmux.datapath.access import allowed, unchecked
from lbmux.datapath.choose import base_of, choose, known_backend, slot_hash, slot_pair
from lbmux.datapath.context import backend_limit, backends, context_at, slots
from lbmux.datapath.flow_lookup import delete, flow_hash, lookup, set_target
from lbmux.datapath.flows import remember
from lbmux.datapath.hashing import scale
from lbmux.datapath.memory import at_address, int64, step, u16, u32
from lbmux.datapath.mux import with_service
from lbmux.datapath.parse import PARSED, Packet
from lbmux.datapath.tables import NO_BASE, TRACK_NONE, backend_row, entry_row, slot_row
from lbmux.targets.native import context_row


@compiled
def expected_backend(  # type: ignore[no-untyped-def]
    context_address, source_high, source_low, destination_high, destination_low, ports, protocol, family, now
):
    """Return the backend of the flow's entry, else of its slot, or -1. The flow is not entered.

    Return -1 too if the access list denies the client.
    """
    packet = _packet_of(source_high, source_low, destination_high, destination_low, ports, protocol, family)
    _, target = with_service(context_at(context_address), packet, allowed, _expected, u32(now))
    return target


@compiled
def chosen_backend(  # type: ignore[no-untyped-def]
    context_address, source_high, source_low, destination_high, destination_low, ports, protocol, family, now
):
    """Return the backend that the data path chooses for a packet of the flow, or -1. The flow is entered."""
    context, record = context_at(context_address), context_row(at_address(context_address), 0)
    record.now = now
    packet = _packet_of(source_high, source_low, destination_high, destination_low, ports, protocol, family)
    nothing = at_address(context_address)  # an empty frame has no connection id
    _, target = with_service(context, packet, allowed, _choose, (int64(record.worker), nothing, u32(now)))
    return target


@compiled
def entry_backend(  # type: ignore[no-untyped-def]
    context_address, source_high, source_low, destination_high, destination_low, ports, protocol, family, now
):
    """Return the backend of the flow's entry, or -1."""
    packet = _packet_of(source_high, source_low, destination_high, destination_low, ports, protocol, family)
    _, target = with_service(context_at(context_address), packet, unchecked, _entry, u32(now))
    return target


@compiled
def slot_backends(  # type: ignore[no-untyped-def]
    context_address, source_high, source_low, destination_high, destination_low, ports, protocol, family, results
):
    """Write the flow's service, its slot's backend and the slot's base to ``results``, int64[3]; each may be -1."""
    results[0], results[1], results[2] = -1, -1, -1
    packet = _packet_of(source_high, source_low, destination_high, destination_low, ports, protocol, family)
    with_service(context_at(context_address), packet, unchecked, _slot, results)


@compiled
def assign_flow(  # type: ignore[no-untyped-def]
    context_address, source_high, source_low, destination_high, destination_low, ports, protocol, family, now, backend
):
    """Write a backend to the flow's entry, or enter the flow."""
    context = context_at(context_address)
    worker = int64(context_row(at_address(context_address), 0).worker)
    packet = _packet_of(source_high, source_low, destination_high, destination_low, ports, protocol, family)
    if backend >= 0 and backend < backend_limit(context):
        with_service(context, packet, unchecked, _assign, (worker, int64(backend), u32(now)))


@compiled
def forget_flow(  # type: ignore[no-untyped-def]
    context_address, source_high, source_low, destination_high, destination_low, ports, protocol, family
):
    """Delete the flow's entry."""
    packet = _packet_of(source_high, source_low, destination_high, destination_low, ports, protocol, family)
    with_service(context_at(context_address), packet, unchecked, _forget, ())


@step
def _packet_of(source_high, source_low, destination_high, destination_low, ports, protocol, family):  # type: ignore[no-untyped-def]
    """Return the packet in which a flow would arrive."""
    return Packet(
        int64(PARSED), int64(family), source_high, source_low, destination_high, destination_low, u32(ports),
        int64(protocol), int64(0), int64(0), int64(0),
    )  # fmt: skip


@step
def _expected(context, setting, packet, index, service, now):  # type: ignore[no-untyped-def]
    _, target = _entry(context, setting, packet, index, service, now)
    if target < 0:
        target, _ = slot_pair(context, service, packet)
    return int64(PARSED), target


@step
def _choose(context, setting, packet, index, service, arguments):  # type: ignore[no-untyped-def]
    worker, nothing, now = arguments
    target = choose(context, setting, worker, nothing, nothing, packet, index, service, now)
    return int64(PARSED), max(target, int64(-1))


@step
def _entry(context, setting, packet, index, service, now):  # type: ignore[no-untyped-def]
    hashed = flow_hash(setting, packet.source_high, packet.source_low, packet.ports, packet.destination_low)
    return int64(PARSED), known_backend(context, hashed, packet, index, service, now)


@step
def _slot(context, setting, packet, index, service, results):  # type: ignore[no-untyped-def]
    target, base = slot_pair(context, service, packet)
    results[0], results[1], results[2] = index, target, base_of(context, service, packet, base)
    return int64(PARSED), index


@step
def _assign(context, setting, packet, index, service, arguments):  # type: ignore[no-untyped-def]
    worker, backend, now = arguments
    row = backend_row(backends(context), backend)
    hashed = flow_hash(setting, packet.source_high, packet.source_low, packet.ports, packet.destination_low)
    bucket, way, word = lookup(context, hashed, packet.source_high, packet.source_low, packet.ports, index)
    if way >= 0:
        set_target(bucket, way, word, backend, row.generation)
        entry_row(bucket, way).seen = now
    else:
        remember(
            context, setting, worker, hashed, packet.source_high, packet.source_low, packet.ports, index, backend,
            row.generation, service, now,
        )  # fmt: skip
    target, base = slot_pair(context, service, packet)
    if service.tracking != TRACK_NONE and target == base and target >= 0 and target != backend:
        _mark(context, service, packet)
    return int64(PARSED), backend


@step
def _mark(context, service, packet):  # type: ignore[no-untyped-def]
    """Have the flows of the packet's steady slot looked up: one of them is at another backend now."""
    slot = int64(service.slots) + scale(slot_hash(service, packet), service.size)
    slot_row(slots(context), slot).base = u16(NO_BASE)


@step
def _forget(context, setting, packet, index, service, arguments):  # type: ignore[no-untyped-def]
    hashed = flow_hash(setting, packet.source_high, packet.source_low, packet.ports, packet.destination_low)
    bucket, way, word = lookup(context, hashed, packet.source_high, packet.source_low, packet.ports, index)
    if way >= 0:
        delete(bucket, way, word)
    return int64(PARSED), index
