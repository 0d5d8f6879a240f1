"""Counts the live connections of an agent's backends in its host's sockets.

With NAT a socket has the address of the backend, and lbmux.tables.socket_sync knows the VIP of its connection. If it
does not, and several VIPs lead to that address, the connection counts for one of them.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import port_to_wire, to_pair
from lbmux.config.models import BackendKey
from lbmux.datapath.tables import LOCAL
from lbmux.linux.sock_diag import LISTEN, SYN_SENT
from lbmux.tables.agent_tables import AgentTables
from lbmux.tables.mux_rows import PROTOCOLS
from lbmux.tables.snapshot import Snapshot
from lbmux.tables.socket_sync import AMBIGUOUS, SocketSync


def connections_by_backend(
    agent: AgentTables, socket_sync: SocketSync, sockets: NDArray[Any]
) -> Mapping[BackendKey, int]:
    """Return the number of live connections by backend, without those that have none; ``sockets``: SOCKETS rows."""
    if agent.mode == LOCAL:
        return _on_vips(agent, sockets)
    keys = {row: key for key, row in Snapshot.of_agent(agent).rows.items()}
    of_owner = {int(agent.tables.endpoints[row]["owner"]): key for row, key in sorted(keys.items(), reverse=True)}
    flows, counts = socket_sync.find(sockets).flows, Counter[BackendKey]()
    ends, numbers = np.unique(flows[["target", "owner"]], return_counts=True)
    for (target, owner), number in zip(ends.tolist(), numbers.tolist(), strict=True):
        key = of_owner.get(owner) if target == AMBIGUOUS else keys.get(target)
        if key is not None:
            counts[key] += number
    return counts


def _on_vips(agent: AgentTables, sockets: NDArray[Any]) -> Mapping[BackendKey, int]:
    """Count for a host that has the VIPs: a socket has the VIP's address and port."""
    sockets = sockets[(sockets["state"] != LISTEN) & (sockets["state"] != SYN_SENT)]
    for mux in agent.mux_addresses:  # the muxes' probes
        sockets = sockets[(sockets["remote"] != np.array(to_pair(mux), np.uint64)).any(axis=1)]
    counts = Counter[BackendKey]()
    for service, backend in agent.served:
        mine = sockets[sockets["protocol"] == PROTOCOLS[service.protocol]]
        mine = mine[(mine["local"] == np.array(to_pair(service.vip), np.uint64)).all(axis=1)]
        if service.port:
            mine = mine[np.isin(mine["local_port"], [port_to_wire(port) for port in service.ports])]
        counts[service.name, backend.name] += len(mine)
    return +counts
