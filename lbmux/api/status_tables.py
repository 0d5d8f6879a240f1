"""The status of a running mux or agent: services, backends, counters, neighbours.

Everything here is a pure function of a Snapshot, and runs in a thread.  The tables are read on request; the packet path
keeps no extra state for it.
"""

import contextlib
import socket
from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import from_pair, mac_from_int
from lbmux.api.answers import BackendLine, NeighbourLine, ServiceLine, TableSize, VerdictLine
from lbmux.config.models import Service
from lbmux.datapath.tables import CLOSING, DRAINING, GONE, LOOKUPS, SLOT, TRUSTED, UNTRUSTED, UP
from lbmux.datapath.verdicts import DROPS, PASSES, Verdict
from lbmux.tables import live_flows
from lbmux.tables.row_identities import identity
from lbmux.tables.slot_pairs import is_marked
from lbmux.tables.snapshot import Snapshot

STATES = {GONE: "gone", UP: "up", DRAINING: "draining"}


def services(snapshot: Snapshot) -> list[ServiceLine]:
    """Return for each service what clients see, its Maglev table, and the sums over its backends."""
    lines_of_services = []
    lines = {line.key: line for line in backends(snapshot)}
    for service in snapshot.services:
        own = [lines[service.name, backend.name] for backend in service.backends]
        table = slot_table(snapshot, service)
        lines_of_services.append(
            ServiceLine(
                service=service.name,
                vip=str(service.vip),
                protocol=service.protocol,
                port=service.port,
                ports=service.port_text,
                slots=len(table),
                digest=digest(snapshot, service, table),
                flows=service.tracking,
                marked_slots=marked_slots(snapshot, service),
                idle=service.idle.model_dump(),
                backends=len(own),
                backends_up=sum(line.state == "up" for line in own),
                live_flows=sum(line.live_flows for line in own),
                packets=_sum([line.packets for line in own]),
                bytes=_sum([line.bytes for line in own]),
                new_flows=_sum([line.new_flows for line in own]),
                pool=service.pool,
            )
        )
    return lines_of_services


def backends(snapshot: Snapshot) -> list[BackendLine]:
    """Return for each backend its state, next hop, traffic (with outer headers) and flows.

    An agent does not count traffic by backend.
    """
    tables, lines = snapshot.tables, []
    rows = np.array(list(snapshot.owners), np.int64)
    flows = live_flows.by_backend(snapshot)[rows]
    traffic = None if snapshot.is_agent else {key: tables.traffic[key][:, rows].sum(0) for key in TRAFFIC_FIELDS}
    targets = (tables.endpoints if snapshot.is_agent else tables.backends)[rows]
    for at, (service, backend) in enumerate(snapshot.owners.values()):
        line = BackendLine(
            service=service.name,
            backend=backend.name,
            dip=str(backend.dip),
            port=backend.port,
            host=str(backend.tunnel_to),
            weight=backend.weight,
            state=STATES[int(targets["state"][at])],
            reachable=None if snapshot.is_agent else bool(targets["destination_mac"][at]),
            **{name: None if traffic is None else int(traffic[key][at]) for key, name in TRAFFIC_FIELDS.items()},
            live_flows=int(flows[at].sum()),
            trusted_flows=int(flows[at, TRUSTED]),
            untrusted_flows=int(flows[at, UNTRUSTED]),
            closing_flows=int(flows[at, CLOSING]),
        )
        lines.append(line)
    return lines


TRAFFIC_FIELDS = {"packets": "packets", "bytes": "bytes", "flows": "new_flows"}


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def slot_table(snapshot: Snapshot, service: Service) -> NDArray[np.uint16]:
    """Return a service's Maglev table: rows of backends.  Empty at an agent, and if no backend has a weight."""
    table: NDArray[np.uint16] = _pairs(snapshot, service)["backend"].copy()
    return table


def marked_slots(snapshot: Snapshot, service: Service) -> int:
    """Return the number of a service's slots whose flows are looked up (docs/flow-state.md)."""
    return int(np.count_nonzero(is_marked(_pairs(snapshot, service))))


def _pairs(snapshot: Snapshot, service: Service) -> NDArray[Any]:
    tables = snapshot.tables
    value = identity(service.vip, service.protocol, service.port)
    held = np.flatnonzero(tables.service_identities == np.uint64(value))
    if snapshot.is_agent or not len(held):
        return np.empty(0, SLOT)
    row = tables.services[tables.active][held[0]]
    return tables.slots[int(row["slots"]) : int(row["slots"]) + int(row["size"])]


def digest(snapshot: Snapshot, service: Service, table: NDArray[np.uint16]) -> str | None:
    """Return a hash of the slots' backend names: equal on all muxes with the same file, whatever rows they use."""
    if not len(table):
        return None
    names = sorted(backend.name for backend in service.backends)
    places = np.full(1 << 16, 0xFFFF, np.uint16)
    for place, name in enumerate(names):
        places[snapshot.rows[service.name, name]] = place
    hashed = blake2b("\n".join(names).encode(), digest_size=8)
    hashed.update(places[table].astype("<u2").tobytes())
    return hashed.hexdigest()


def verdicts(snapshot: Snapshot, in_kernel: bool) -> list[VerdictLine]:
    """Return packets and bytes by verdict, summed over the workers.

    ``in_kernel``: kernel programs process frames before user space, the last worker.  A frame that they pass also
    reaches user space, which runs the same function on it, so both count it as passed.  Therefore the passes of user
    space are left out, and each passed frame counts once.  A frame that the kernel passed and user space sent, such as
    one for a neighbour that was not yet known, counts as both.
    """
    rows = snapshot.tables.verdicts
    if in_kernel:
        rows = rows.copy()
        for name in ("packets", "bytes"):
            rows[name][-1, PASSES:DROPS] = 0
    packets, length = rows["packets"].sum(0), rows["bytes"].sum(0)
    return [VerdictLine(v.label, v.kind, int(packets[v]), int(length[v])) for v in Verdict]


def lookups(snapshot: Snapshot) -> dict[str, int]:
    """Return the look-ups in the flow table by result, summed over the workers."""
    counts = snapshot.tables.lookups.sum(0)
    return {name: int(counts[at]) for at, name in enumerate(LOOKUPS)}


def neighbours(snapshot: Snapshot) -> list[NeighbourLine]:
    """Return the hosts that a mux tunnels to, and their next hops; empty at an agent."""
    if snapshot.is_agent:
        return []
    users: dict[tuple[int, int], list[int]] = defaultdict(list)
    table = snapshot.tables.backends
    for row in snapshot.owners:
        users[int(table[row]["remote_high"]), int(table[row]["remote_low"])].append(row)
    lines = []
    for pair, rows in users.items():
        row = table[rows[0]]
        mac = int(row["destination_mac"])
        lines.append(
            NeighbourLine(
                host=str(from_pair(*pair)),
                mac=mac_from_int(mac) if mac else None,
                source_mac=mac_from_int(int(row["source_mac"])) if mac else None,
                interface=interface_name(int(row["interface"])) if mac else None,
                mtu=int(row["mtu"]) if mac else None,
                backends=["/".join((s.name, b.name)) for s, b in (snapshot.owners[at] for at in rows)],
            )
        )
    return lines


def interface_name(index: int) -> str:
    with contextlib.suppress(OSError):  # the interface may be gone
        return socket.if_indextoname(index)
    return str(index)


def table_sizes(snapshot: Snapshot) -> tuple[dict[str, TableSize], int]:
    """Return the size of each table, and the memory of all regions in bytes."""
    tables, sizes = snapshot.tables, snapshot.tables.sizes
    used_slots = 0 if snapshot.is_agent else int(tables.services[tables.active]["size"].sum())
    used = {
        "addresses": (int(np.count_nonzero(tables.addresses[tables.active]["kind"])), sizes.addresses),
        "slots": (used_slots, sizes.slots),
        "backends": (int(np.count_nonzero(tables.backends["state"])), sizes.backends),
        "endpoints": (int(np.count_nonzero(tables.endpoints["state"])), sizes.endpoints),
        "flows": (live_flows.count(snapshot), tables.flows.size),
    }
    memory = sizes.regions()
    of_table = {name: TableSize(have, rows, memory[name]) for name, (have, rows) in used.items()}
    return of_table, sum(memory.values())
