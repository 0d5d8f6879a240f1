"""Services, flows and counters: what the tables have, and what passed through them."""

from dataclasses import dataclass
from typing import Any

from lbmux.api.answers.program_answer import Key, ProgramAnswer


@dataclass(frozen=True)
class ServiceLine:
    """A service, its Maglev table, and the sums over its backends.

    ``digest`` is equal on all muxes with the same table; None without a table, as at an agent.  ``flows``: which flows
    get an entry; ``marked_slots``: slots whose flows are looked up.  ``idle``: idle times in seconds by the state of a
    flow.  ``pool``: the named pool that its backends come from.
    """

    service: str
    vip: str
    protocol: str
    port: int
    ports: str
    slots: int
    digest: str | None
    flows: str
    marked_slots: int
    idle: dict[str, Any]
    backends: int
    backends_up: int
    live_flows: int
    packets: int | None
    bytes: int | None
    new_flows: int | None
    pool: str | None = None


@dataclass(frozen=True)
class Services(ProgramAnswer):
    services: list[ServiceLine]


@dataclass(frozen=True)
class BackendLine:
    """A backend in the tables.  An agent has no next hops and does not count traffic by backend: None."""

    service: str
    backend: str
    dip: str
    port: int
    host: str
    weight: int
    state: str
    reachable: bool | None
    packets: int | None
    bytes: int | None
    new_flows: int | None
    live_flows: int
    trusted_flows: int
    untrusted_flows: int
    closing_flows: int

    @property
    def key(self) -> Key:
        return self.service, self.backend


@dataclass(frozen=True)
class Backends(ProgramAnswer):
    backends: list[BackendLine]


@dataclass(frozen=True)
class NeighbourLine:
    """A host that a mux tunnels to, its next hop (None while unknown), and its backends as SERVICE/BACKEND."""

    host: str
    mac: str | None
    source_mac: str | None
    interface: str | None
    mtu: int | None
    backends: list[str]


@dataclass(frozen=True)
class Neighbours(ProgramAnswer):
    neighbours: list[NeighbourLine]


@dataclass(frozen=True)
class VerdictLine:
    """``kind``: send, pass or drop."""

    verdict: str
    kind: str
    packets: int
    bytes: int


@dataclass(frozen=True)
class Counters(ProgramAnswer):
    """Packets by verdict and look-ups by result, and what the ring, the queue for MACs and the slow path count.

    A part that the daemon does not have is None.
    """

    verdicts: list[VerdictLine]
    lookups: dict[str, int]
    ring: dict[str, int] | None
    pending_neighbours: dict[str, int] | None
    slowpath: dict[str, int] | None


@dataclass(frozen=True)
class FlowLine:
    """A live flow; ``idle_s``: seconds since its last packet.  The service's fields are None without a backend."""

    version: int
    protocol: str | None
    source: str
    source_port: int
    destination: str | None
    destination_port: int
    service: str | None
    backend: str | None
    state: str
    idle_s: float


@dataclass(frozen=True)
class Flows:
    flows: list[FlowLine]


@dataclass(frozen=True)
class FlowCount(ProgramAnswer):
    flows: int


@dataclass(frozen=True)
class ConnectionCounts(ProgramAnswer):
    """``connections``: lines of service, backend and number."""

    connections: list[tuple[str, str, int]]
