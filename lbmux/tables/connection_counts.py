"""Counts the live connections of an agent's backends in its host's sockets.

With NAT a socket has the address of the backend, and lbmux.tables.socket_sync knows the VIP of its connection. If it
does not, and several VIPs lead to that address, the connection counts for one of them.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.config.models import BackendKey
from lbmux.datapath.tables import LOCAL
from lbmux.tables.agent_tables import AgentTables
from lbmux.tables.snapshot import Snapshot
from lbmux.tables.socket_sync import AMBIGUOUS, SocketFlows, SocketSync
from lbmux.tables.vip_connections import connections_on_vips


@dataclass(frozen=True)
class ConnectionPass:
    """The live connections that an agent counted in one pass over the sockets of its host."""

    begun: float
    """When it began, in seconds of the monotonic clock."""
    counts: Mapping[BackendKey, int]
    """TCP connections by backend; only backends whose sockets the agent can look up and tell from others'."""


def counted_by_pass(agent: AgentTables, begun: float, socket_flows: SocketFlows) -> ConnectionPass:
    """Return the connections of a pass over the host's sockets, of an agent in mode nat."""
    counts, flows = _by_target(agent, socket_flows), socket_flows.flows
    known = {
        (service.name, backend.name)
        for service, backend in agent.served
        if service.protocol == "tcp" and agent.knows_sockets_of(backend.dip)
    }
    ambiguous = set(flows["owner"][flows["target"] == AMBIGUOUS].tolist())
    for key, row in Snapshot.of_agent(agent).rows.items():
        if int(agent.tables.endpoints[row]["owner"]) in ambiguous:
            known.discard(key)
    return ConnectionPass(begun, {key: counts.get(key, 0) for key in known})


def connections_by_backend(
    agent: AgentTables, socket_sync: SocketSync, sockets: NDArray[Any]
) -> Mapping[BackendKey, int]:
    """Return the number of live connections by backend, without those that have none; ``sockets``: SOCKETS rows."""
    if agent.mode == LOCAL:
        return connections_on_vips(agent.served, sockets, agent.mux_addresses)
    return _by_target(agent, socket_sync.find(sockets))


def _by_target(agent: AgentTables, socket_flows: SocketFlows) -> Mapping[BackendKey, int]:
    keys = {row: key for key, row in Snapshot.of_agent(agent).rows.items()}
    of_owner = {int(agent.tables.endpoints[row]["owner"]): key for row, key in sorted(keys.items(), reverse=True)}
    flows, counts = socket_flows.flows, Counter[BackendKey]()
    ends, numbers = np.unique(flows[["target", "owner"]], return_counts=True)
    for (target, owner), number in zip(ends.tolist(), numbers.tolist(), strict=True):
        key = of_owner.get(owner) if target == AMBIGUOUS else keys.get(target)
        if key is not None:
            counts[key] += number
    return counts
