"""Check the whole pool through its manager: nodes, what is in force, certificates, and equal tables."""

import time
from collections.abc import Iterator, Sequence

from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetRuntime
from lbmux.errors import ControlError
from lbmux.manager.api_client import ApiClient
from lbmux.manager.api_models import NodesAnswer, StatusAnswer
from lbmux.manager.documents import NodeReport
from lbmux.manager.relayed_node import RelayedNode
from lbmux.plurals import counted
from lbmux.tools.doctor.finding import Finding, fault, ok, warning
from lbmux.tools.doctor.node_state import TIMEOUT_S
from lbmux.tools.doctor.pool_checks import digests

WEEK_S = 7 * 86400


def examine_pool(client: ApiClient) -> Iterator[Finding]:
    """Yield the findings about all nodes that the manager knows; raise ApiError if no manager answers."""
    status, nodes = client.get("/v1/status", StatusAnswer), client.get("/v1/nodes", NodesAnswer).nodes
    yield _primary(status)
    yield from alive(nodes)
    yield from in_force(nodes, status)
    yield from valid(nodes, time.time())
    balancers = [one for one in nodes if one.connected and _has_tables(RelayedNode(client, one.node), one.role)]
    yield from equal_tables([RelayedNode(client, one.node) for one in balancers])


def _has_tables(node: RelayedNode, role: str) -> bool:
    """Return whether a node forwards to all backends; an edge that does not balance refuses the question."""
    if role != "edge":
        return role == "mux"
    try:
        return ControlClient(node, TIMEOUT_S).ask(GetRuntime()).program == "edge"
    except ControlError:
        return False


def _primary(status: StatusAnswer) -> Finding:
    if status.primary:
        return ok("manager", f"{status.primary} is primary, epoch {status.epoch}, revision {status.revision}")
    hint = "check the managers' logs and the store; without a primary, changes are refused, but muxes forward"
    return fault("manager", "no manager is primary", hint)


def alive(nodes: Sequence[NodeReport]) -> Iterator[Finding]:
    """Check that every node that was seen is connected."""
    for one in nodes:
        if not one.connected:
            hint = f"check {one.node}: is `lbmux {one.role}` running, and can it reach a manager?"
            yield fault("nodes", f"{one.role} {one.node} is not connected", hint)
    roles = [one.role for one in nodes if one.connected]
    edges = f", {counted(roles.count('edge'), 'edge')}" if "edge" in roles else ""
    yield ok("nodes", f"{counted(roles.count('mux'), 'mux', 'muxes')}{edges} and "
             f"{counted(roles.count('agent'), 'agent')} are connected")  # fmt: skip
    if not {"mux", "edge"} & {*roles}:
        yield warning("nodes", "no mux is connected", "start one with `lbmux mux --manager`")


def in_force(nodes: Sequence[NodeReport], status: StatusAnswer) -> Iterator[Finding]:
    """Check that every connected node has the current revision and overrides."""
    behind = 0
    for one in nodes:
        if one.connected and one.refused:
            seen = f"{one.node} refuses revision {one.revision}: {one.refused}"
            yield fault("revision", seen, "fix the configuration and apply it again, or `lbmux rollback`")
        elif one.connected and (one.in_force, one.overrides) != (status.revision, status.overrides):
            seen = f"{one.node} has revision {one.in_force} and overrides {one.overrides}"
            yield warning(
                "revision", f"{seen}, not {status.revision} and {status.overrides}", "run the doctor again in a second"
            )
        else:
            continue
        behind += 1
    if not behind:
        yield ok("revision", f"revision {status.revision} is in force on all connected nodes")


def valid(nodes: Sequence[NodeReport], now: float) -> Iterator[Finding]:
    """Check that every certificate is valid for another week; nodes renew theirs long before."""
    ending = [one for one in nodes if one.connected and one.certificate_until and one.certificate_until < now + WEEK_S]
    for one in ending:
        days = ((one.certificate_until or 0) - now) / 86400
        hint = "it was not renewed: does a manager have the CA's key (ca.key)? If not, get a new one with `lbmux join`"
        yield fault("certificate", f"the certificate of {one.node} expires in {days:.1f} days", hint)
    if not ending:
        yield ok("certificate", "the certificates of all connected nodes are valid for at least a week")


def equal_tables(muxes: Sequence[RelayedNode]) -> Iterator[Finding]:
    """Check that all muxes, and edges that balance, have the same Maglev tables."""
    by_mux: dict[str, dict[str, str | None]] = {}
    for mux in muxes:
        try:
            by_mux[mux.name] = digests(mux)
        except ControlError as error:
            yield fault("tables", str(error), f"check {mux.name}")
    if not by_mux:
        return
    first, *others = by_mux.items()
    for name, theirs in others:
        differ = sorted(one for one in first[1].keys() | theirs.keys() if first[1].get(one) != theirs.get(one))
        if differ:
            seen = f"{first[0]} and {name} have different tables for {', '.join(differ)}"
            yield fault("tables", seen, "compare their `lbmux show health`: do both reach all hosts?")
    if len({tuple(sorted(one.items())) for one in by_mux.values()}) == 1:
        yield ok("tables", f"{counted(len(by_mux), 'mux', 'muxes')}: the same {counted(len(first[1]), 'table')}")
