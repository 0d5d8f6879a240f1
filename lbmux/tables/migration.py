"""Moves flows into new tables from tables that another version left, or that have other sizes.

Rows are matched by identity (row_identities), since services and backends may have other row numbers now.  The old
tables describe their own layout.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lbmux.codegen.compiled import address_of, compiled
from lbmux.datapath.context import context_at, endpoints, service_limit, services, settings
from lbmux.datapath.flow_lookup import flow_hash, lookup, set_state, trusted_in
from lbmux.datapath.flows import move, remember
from lbmux.datapath.memory import at_address, int64, layout, rows, step, u32
from lbmux.datapath.tables import (
    DIP,
    FLOW,
    GONE,
    NO_BASE,
    TRUSTED,
    VIP,
    endpoint_row,
    entry_row,
    flow_row,
    service_row,
    settings_row,
)
from lbmux.tables.mux_plan import changed_at
from lbmux.targets import hash_keys
from lbmux.targets.native import Worker
from lbmux.targets.regions import Tables, now_ticks

log = logging.getLogger(__name__)

NOWHERE = 0xFFFF
"""No row."""
KEPT = ("high", "low", "ports", "seen", "state")
"""Fields of a flow that are copied unchanged."""
word_row = rows(layout(("value", "u8")))


@step
def enter_as(context, setting, worker, flow, destination, row, now):  # type: ignore[no-untyped-def]
    """Enter a flow with its old state and time, unless it has an entry.  ``row`` has its idle times.

    Return 1 if it was entered, else 0.
    """
    hashed = flow_hash(setting, flow.high, flow.low, flow.ports, destination)
    _, way, _ = lookup(context, hashed, flow.high, flow.low, flow.ports, int64(flow.owner))
    if way >= 0:
        return 0
    remember(
        context, setting, worker, hashed, flow.high, flow.low, flow.ports, int64(flow.owner), int64(flow.target),
        flow.generation, row, u32(now),
    )  # fmt: skip
    bucket, way, word = lookup(context, hashed, flow.high, flow.low, flow.ports, int64(flow.owner))
    if way < 0:
        return 0
    entry_row(bucket, way).seen = flow.seen
    if flow.state != TRUSTED or trusted_in(bucket) < int64(setting.trusted_ways):
        set_state(bucket, way, word, int64(flow.state))
    else:
        move(context, setting, hashed, bucket, way, word, row, u32(now))
    return 1


@compiled
def _enter_at_mux(context_address, destinations, flows, count, worker, now):  # type: ignore[no-untyped-def]
    context, moved = context_at(context_address), 0
    setting = settings_row(settings(context), 0)
    first = int64(setting.active & u32(1)) * service_limit(context)
    for index in range(count):
        flow = flow_row(at_address(flows), index)
        destination = word_row(at_address(destinations), int64(flow.owner)).value
        row = service_row(services(context), first + int64(flow.owner))
        moved += enter_as(context, setting, worker, flow, destination, row, now)
    return moved


@compiled
def _enter_at_agent(context_address, destinations, flows, count, worker, now):  # type: ignore[no-untyped-def]
    context, moved = context_at(context_address), 0
    setting = settings_row(settings(context), 0)
    for index in range(count):
        flow = flow_row(at_address(flows), index)
        destination = word_row(at_address(destinations), int64(flow.owner)).value
        row = endpoint_row(endpoints(context), int64(flow.target))
        moved += enter_as(context, setting, worker, flow, destination, row, now)
    return moved


@dataclass(frozen=True)
class Kind:
    """The meaning of a mux's or an agent's flows: the table of their targets, and the names of their owners."""

    targets: str
    name: int
    enter_all: Callable[..., int]


MUX = Kind("backends", VIP, _enter_at_mux)
AGENT = Kind("endpoints", DIP, _enter_at_agent)


class Rows(Protocol):
    """Tables as they describe themselves: the rows of a region, with the field names of their version."""

    @property
    def description(self) -> dict[str, Any]: ...

    def rows(self, region: str) -> NDArray[Any]: ...


def copy_keys(previous: Rows, tables: Tables) -> None:
    """Keep the secret keys that suit the new size, before anything is placed by them."""
    before = previous.rows("settings")[0]
    for name in hash_keys.NAMES:
        if hash_keys.spreads(int(before[name]), tables.sizes.buckets):
            tables.settings[0][name] = before[name]


def move_flows(previous: Rows, tables: Tables, is_agent: bool = False) -> int:
    """Enter the live flows of ``previous`` into ``tables``, which are configured; return the number of flows."""
    kind = AGENT if is_agent else MUX
    try:
        flows = _readable(previous, tables, kind)
    except (KeyError, ValueError) as error:
        log.warning("flows of an earlier version cannot be read and are left behind: %s", error)
        return 0
    worker, destinations = Worker(tables, tables.sizes.workers - 1), _destinations(tables, kind)
    arguments = map(address_of, (destinations, flows))
    moved = int(kind.enter_all(worker.address, *arguments, len(flows), worker.number, now_ticks()))
    if moved:  # flows may now differ from their slots' backends
        tables.settings[0]["tables_changed"] = changed_at(now_ticks())
        for service in tables.services[tables.active]:
            tables.slots["base"][int(service["slots"]) : int(service["slots"]) + int(service["size"])] = NO_BASE
    return moved


def _readable(previous: Rows, tables: Tables, kind: Kind) -> NDArray[Any]:
    """Return the old flows in the new layout, if their owner and target still exist.

    Tables of earlier versions have a part for each CPU, and a flow may have an entry in several: the latest one counts.
    """
    flows = previous.rows("flows")
    flows = flows[flows["state"] != 0]
    flows = flows[np.argsort(np.uint32(now_ticks()) - flows["seen"], kind="stable")]
    now = getattr(tables, kind.targets)
    owners, targets = _renumbered(previous, tables, now)
    generations = np.zeros(NOWHERE + 1, np.uint8)
    before = previous.rows(kind.targets)["generation"]
    generations[: len(before)] = before
    return _as_ours(flows, owners, targets, generations, now["generation"])


def _as_ours(
    old: NDArray[Any],
    owners: NDArray[np.uint16],
    targets: NDArray[np.uint16],
    generations: NDArray[np.uint8],
    now: NDArray[np.uint8],
) -> NDArray[Any]:
    """Return the flows with the new rows of their owners and targets, without those whose owner or target is gone.

    ``generations`` are the targets' by old row, ``now`` those by new row.
    """
    old = old[old["generation"] == generations[old["target"]]]  # otherwise the row had another owner before
    flows = np.zeros(len(old), FLOW)
    for name in KEPT:
        flows[name] = old[name]
    flows["owner"], flows["target"] = owners[old["owner"]], targets[old["target"]]
    has_rows = (flows["owner"] != NOWHERE) & (flows["target"] != NOWHERE)
    flows = np.ascontiguousarray(flows[has_rows])
    flows["generation"] = now[flows["target"]]
    return flows


def _renumbered(previous: Rows, tables: Tables, targets: NDArray[Any]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Map old rows of owners and of targets to the new ones, or to NOWHERE."""
    identities, count = previous.rows("identities"), previous.description["sizes"]["services"]
    values = identities.view(np.uint64)  # each row is one number, whatever its name
    return (
        _renumber(values[:count], _held(tables.service_identities)),
        _renumber(values[count:], _held(tables.backend_identities[: len(targets)], targets["state"] != GONE)),
    )


def _held(identities: NDArray[Any], used: NDArray[Any] | None = None) -> dict[int, int]:
    rows = range(len(identities)) if used is None else np.flatnonzero(used).tolist()
    return {int(identities[row]): row for row in rows if identities[row]}


def _renumber(before: NDArray[Any], now: Mapping[int, int]) -> NDArray[np.uint16]:
    """Return the new row by old row, or NOWHERE, for every number that fits a flow's field."""
    numbers = np.full(NOWHERE + 1, NOWHERE, np.uint16)
    numbers[: len(before)] = [now.get(int(value), NOWHERE) if value else NOWHERE for value in before.tolist()]
    return numbers


def _destinations(tables: Tables, kind: Kind) -> NDArray[np.uint64]:
    """Return the low half of each owner's address, which is hashed to place its flows."""
    low = np.zeros(tables.sizes.services, np.uint64)
    for name in tables.addresses[tables.active]:
        if name["kind"] == kind.name:
            low[name["index"]] = name["low"]
    return low
