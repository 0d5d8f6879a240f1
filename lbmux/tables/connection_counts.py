"""Counts the live connections of an agent's backends in its host's sockets.

With NAT a socket has the address of the backend, and lbmux.tables.socket_sync knows the VIP of its connection. If it
does not, and several VIPs lead to that address, the connection counts for one of them.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.config.models import BackendKey
from lbmux.datapath.tables import LOCAL
from lbmux.tables.agent_tables import AgentTables
from lbmux.tables.snapshot import Snapshot
from lbmux.tables.socket_sync import AMBIGUOUS, SocketSync
from lbmux.tables.vip_connections import connections_on_vips


def connections_by_backend(
    agent: AgentTables, socket_sync: SocketSync, sockets: NDArray[Any]
) -> Mapping[BackendKey, int]:
    """Return the number of live connections by backend, without those that have none; ``sockets``: SOCKETS rows."""
    if agent.mode == LOCAL:
        return connections_on_vips(agent.served, sockets, agent.mux_addresses)
    keys = {row: key for key, row in Snapshot.of_agent(agent).rows.items()}
    of_owner = {int(agent.tables.endpoints[row]["owner"]): key for row, key in sorted(keys.items(), reverse=True)}
    flows, counts = socket_sync.find(sockets).flows, Counter[BackendKey]()
    ends, numbers = np.unique(flows[["target", "owner"]], return_counts=True)
    for (target, owner), number in zip(ends.tolist(), numbers.tolist(), strict=True):
        key = of_owner.get(owner) if target == AMBIGUOUS else keys.get(target)
        if key is not None:
            counts[key] += number
    return counts
