"""Overrides that were given at a mux's own socket while there was no primary: the primary takes them over.

It does so where the pool still has what the mux had before. Otherwise it keeps the pool's, and the conflict is in the
pool's events and in its log.
"""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from lbmux.backends.override_commands import (
    Change,
    OverrideError,
    UnknownBackendError,
    set_admin_state,
    set_weight,
)
from lbmux.bgp.announced import UNCHANGED, described
from lbmux.config.field_types import Model
from lbmux.manager.api_handlers import Call
from lbmux.manager.api_models import LocalOverride, LocalRoute, TakenOver
from lbmux.manager.documents import StoredOverride
from lbmux.manager.guard_rails import GuardRailError
from lbmux.manager.proposals import CanaryError
from lbmux.manager.route_overrides import RouteOrder, UnknownVipError, commands_at, in_force
from lbmux.manager.stored_overrides import describe
from lbmux.manager.tokens import AccessError

log = logging.getLogger(__name__)
REFUSALS = (OverrideError, UnknownBackendError, GuardRailError, CanaryError)


async def take_over(call: Call) -> Model:
    """Take over a mux's own overrides, and answer with those that were and those that were not."""
    assert call.node is not None  # the endpoint asks for a certificate
    report = call.manager.nodes.get(call.node.name)
    if report is None or report.role != "mux":
        raise AccessError(f"node {call.node.name} is not a mux that is connected")
    taken, conflicts = list[str](), list[str]()
    for what, since, reason in [
        *[(_override(one), one.since, await _refused(call, one)) for one in call.body.overrides],
        *[(_route(one), one.since, await _refused_route(call, one)) for one in call.body.routes],
    ]:
        if reason is None:
            continue
        if reason:
            given = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            conflicts.append(f"{what}, given at {call.node.name} at {given}, is not in force: {reason}")
        else:
            taken.append(what)
    if conflicts:
        log.warning("%s", "; ".join(conflicts))
        await call.manager.pool.record("conflict", call.caller, "; ".join(conflicts))
    return TakenOver(taken=tuple(taken), conflicts=tuple(conflicts))


async def _refused(call: Call, one: LocalOverride) -> str | None:
    """Put an override in force for the pool; return why that is not possible, or None if the pool has it already."""
    pool = call.manager.pool
    theirs = next((it for it in pool.state.overrides if (it.service, it.backend) == (one.service, one.backend)), None)
    now = (None, None) if theirs is None else (theirs.admin_state, theirs.weight)
    if one.added:
        return None if theirs is not None and theirs.added else "add it at the manager"
    if now == (one.admin_state, one.weight):
        return None
    if now != (one.held_admin_state, one.held_weight):
        return _others(theirs)
    try:
        for change in _changes(one):
            await pool.override(change, call.caller, f"given at {call.caller.name} without a primary")
    except REFUSALS as error:
        return " ".join(str(error).splitlines())
    return ""


async def _refused_route(call: Call, one: LocalRoute) -> str | None:
    """Put a mux's own withdrawal or announcement in force at that mux; the answers are those of `_refused`."""
    pool, node = call.manager.pool, call.caller.name
    stored, wanted = pool.state.stored.routes, in_force(one.announcement)
    now = commands_at(stored, node).get(one.vip, UNCHANGED)
    if now == wanted:
        return None
    if now != in_force(one.held):
        return f"the pool has it {described(now)} meanwhile"
    if any(it.vip == one.vip and it.node is None for it in stored):
        return "the pool's override is about all muxes and edges: change it at the manager"
    try:
        order = RouteOrder(one.vip, node, wanted)
        await pool.announce(order, call.caller, f"given at {node} without a primary")
    except UnknownVipError as error:
        return str(error)
    return ""


def _changes(one: LocalOverride) -> Iterator[Change]:
    if one.admin_state != one.held_admin_state:
        yield set_admin_state(one.admin_state, one.backend, one.service, one.since)
    if one.weight != one.held_weight:
        yield set_weight(one.weight, one.backend, one.service, one.since)


def _route(one: LocalRoute) -> str:
    return f"{one.vip or 'all VIPs'}: {described(in_force(one.announcement))}"


def _override(one: LocalOverride) -> str:
    weight = "" if one.weight is None else f"weight {one.weight}"
    what = ", ".join(filter(None, (one.admin_state, weight, "added" * one.added)))
    return f"{one.service}/{one.backend}: {what or 'as in the file'}"


def _others(override: StoredOverride | None) -> str:
    if override is None:
        return "the pool has the file's meanwhile"
    return f"the pool has {describe(override)} by {override.by}"
