"""An agent's answer about the round-trip times of its host's clients: by prefix, as quantiles, without any address.

It sees the connections in its own network namespace, and those of its backends in containers.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import port_to_wire, to_pair
from lbmux.api.answers import RoundTripLine, RoundTrips
from lbmux.api.protocol import VERSION
from lbmux.api.requests import GetRoundTrips
from lbmux.daemons.status_handlers import parts
from lbmux.datapath.tables import LOCAL
from lbmux.errors import LbmuxError
from lbmux.linux.host_sockets import HostSockets
from lbmux.steering.client_groups import by_prefix
from lbmux.tables.agent_tables import AgentTables


class RoundTripHandler:
    """Reads the kernel's measurements of established connections to this host's backends."""

    def __init__(self, agent: AgentTables, sockets: HostSockets) -> None:
        self._agent, self._sockets, self._lock = agent, sockets, asyncio.Lock()

    async def answer(self, request: GetRoundTrips) -> AsyncIterator[RoundTrips]:
        """Yield the groups; raise LbmuxError if sockets cannot be listed."""
        try:
            async with self._lock:
                lines = await asyncio.to_thread(self._lines)
        except OSError as error:
            raise LbmuxError(f"cannot list the sockets of this host: {error}") from error
        for part in parts(lines):
            yield RoundTrips(VERSION, "agent", part)

    def _lines(self) -> list[RoundTripLine]:
        sockets, rtt_ms = self._sockets.round_trips()
        is_client = self._is_client(sockets)
        groups, now = by_prefix(sockets["remote"][is_client], rtt_ms[is_client]), time.time()
        return [RoundTripLine(str(one.prefix), one.rtt_ms, one.low_ms, one.high_ms, one.samples, now) for one in groups]

    def _is_client(self, sockets: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which sockets are connections of clients to a backend of this host, not probes of the muxes."""
        is_client = np.zeros(len(sockets), bool)
        for service, backend in self._agent.served:
            is_local = self._agent.mode == LOCAL
            address, ports = (service.vip, service.ports) if is_local else (backend.dip, [backend.port])
            is_own = (sockets["local"] == np.array(to_pair(address), np.uint64)).all(axis=1)
            if service.port:
                is_own &= np.isin(sockets["local_port"], [port_to_wire(port) for port in ports])
            is_client |= is_own
        for mux in self._agent.mux_addresses:
            is_client &= (sockets["remote"] != np.array(to_pair(mux), np.uint64)).any(axis=1)
        return is_client
