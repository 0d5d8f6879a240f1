"""A snapshot of the services in force at a mux or an agent, and the rows of their backends.

The tables have only row numbers; a snapshot has the names that commands, metrics and traces show. The event loop takes
it between two packets, at almost no cost. A thread can read it while the configuration is reloaded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lbmux.config.models import Backend, Service
from lbmux.datapath.tables import GONE
from lbmux.tables.agent_tables import AgentTables
from lbmux.tables.mux_tables import MuxTables
from lbmux.tables.row_identities import identity
from lbmux.targets.regions import Tables


@dataclass(frozen=True)
class Snapshot:
    """``rows`` maps (service name, backend name) to a row of ``backends`` or, at an agent, of ``endpoints``."""

    tables: Tables
    services: tuple[Service, ...]
    rows: Mapping[tuple[str, str], int]
    is_agent: bool = False

    @classmethod
    def of_mux(cls, mux: MuxTables) -> "Snapshot":
        return cls(mux.tables, mux.config.services if mux.config else (), mux.rows)

    @classmethod
    def of_agent(cls, agent: AgentTables) -> "Snapshot":
        """Take a snapshot of an agent: its services have only the backends on this host."""
        here: dict[str, tuple[Service, list[Backend]]] = {}
        rows = dict[tuple[str, str], int]()
        identities = agent.tables.backend_identities.tolist()
        at = {
            value: row for row, value in enumerate(identities) if value and agent.tables.endpoints[row]["state"] != GONE
        }
        for service, backend in agent.served:
            here.setdefault(service.name, (service, []))[1].append(backend)
            value = identity(service.vip, service.port, service.protocol, backend.dip, backend.port, agent.mode)
            rows[service.name, backend.name] = at[value]
        services = tuple(s.model_copy(update={"backends": tuple(backends)}) for s, backends in here.values())
        return cls(agent.tables, services, rows, is_agent=True)

    @property
    def program(self) -> str:
        return "agent" if self.is_agent else "mux"

    def backends(self) -> Iterator[tuple[int, Service, Backend]]:
        """Yield each backend with its row and service."""
        for service in self.services:
            for backend in service.backends:
                yield self.rows[service.name, backend.name], service, backend

    @cached_property
    def owners(self) -> dict[int, tuple[Service, Backend]]:
        """Maps a row to its service and backend."""
        return {row: (service, backend) for row, service, backend in self.backends()}

    @cached_property
    def ranks(self) -> NDArray[np.int32]:
        """The position of each row's backend in the configuration, or -1 for a row without a backend."""
        targets = self.tables.endpoints if self.is_agent else self.tables.backends
        ranks = np.full(len(targets), -1, np.int32)
        for rank, row in enumerate(self.owners):
            ranks[row] = rank
        return ranks
