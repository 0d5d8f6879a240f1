"""Answers of daemons on the control socket, as frozen dataclasses; lbmux.api.requests has the requests.

Fields are the JSON fields of `lbmux show -j`.  Counters count since the tables were made; bytes include outer headers.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

Key = tuple[str, str]
"""A backend's service and name."""


@dataclass(frozen=True)
class ProgramAnswer:
    """``version`` is that of the protocol; ``program``: mux, agent or edge."""

    version: int
    program: str


@dataclass(frozen=True)
class ServiceLine:
    """A service, its Maglev table, and the sums over its backends.

    ``digest`` is equal on all muxes with the same table; None without a table, as at an agent.  ``flows``: which flows
    get an entry; ``marked_slots``: slots whose flows are looked up.  ``idle``: idle times in seconds by the state of a
    flow.
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
class Planned(ProgramAnswer):
    """``slots_moved``: the share of a service's slots that get another backend; without services that stay."""

    slots_moved: dict[str, float]


@dataclass(frozen=True)
class ConnectionCounts(ProgramAnswer):
    """``connections``: lines of service, backend and number."""

    connections: list[tuple[str, str, int]]


@dataclass(frozen=True)
class BackendHealth:
    """The state of a backend that the configuration has or had, with the reason; ``since`` in UTC (ISO 8601)."""

    service: str
    backend: str
    state: str
    reason: str
    since: str | None
    dip: str
    port: int
    host: str
    weight: int
    tunnel: str

    @property
    def key(self) -> Key:
        return self.service, self.backend


@dataclass(frozen=True)
class HealthLine(BackendHealth):
    """``drained``: it gets no new flows, and its last flow has ended."""

    drained: bool


@dataclass(frozen=True)
class Health(ProgramAnswer):
    health: list[HealthLine]


@dataclass(frozen=True)
class Overridden(ProgramAnswer):
    """The states of the backends that an override changed."""

    health: list[BackendHealth]


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
class TableSize:
    """``rows`` of which ``used`` are in use; ``bytes`` of memory."""

    used: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class HostForwarding:
    """Whether the host's own forwarding cannot see the VIPs, how many frames were dropped, and why not."""

    vips_filtered: bool
    dropped: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Runtime(ProgramAnswer):
    """A daemon's process.  ``mode``, ``egress`` and ``sockets_elsewhere`` are an agent's, ``host_forwarding`` a mux's.

    ``sockets_elsewhere``: the DIPs in other network namespaces whose sockets the agent sees.
    """

    OMITTED_IF_NONE: ClassVar[frozenset[str]] = frozenset(
        ("mode", "interface_state", "egress", "egress_missing", "sockets_elsewhere", "host_forwarding")
    )

    driver: str
    modes: dict[str, str]
    adopted: bool
    pins_end_with: str
    native_refused: str
    instructions: dict[str, int]
    interface: str
    mode: str | None = None
    addresses: list[str]
    interface_state: str | None = None
    egress: list[str] | None = None
    egress_missing: dict[str, str] | None = None
    sockets_elsewhere: list[str] | None = None
    host_forwarding: HostForwarding | None = None
    pid: int
    uptime_s: float
    cpus: int | None
    workers: int
    config: str
    config_loaded: str
    versions: dict[str, str]
    tables: dict[str, TableSize]
    memory_bytes: int


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
    worker: int


@dataclass(frozen=True)
class Flows:
    flows: list[FlowLine]


@dataclass(frozen=True)
class FlowCount(ProgramAnswer):
    flows: int


@dataclass(frozen=True)
class Layout(ProgramAnswer):
    """The layout of the tables, for clients that read them by ReadMemory, and the services of one VIP.

    ``tables`` is the tables' version, ``sizes`` has the fields of lbmux.datapath.tables.Sizes.  ``rows``: service,
    backend and row; ``interfaces``: names by index.
    """

    tables: int
    sizes: dict[str, int]
    in_kernel: bool
    services: list[dict[str, Any]]
    rows: list[tuple[str, str, int]]
    interfaces: dict[int, str]


@dataclass(frozen=True)
class Reloaded:
    """What a reload changed, and the overrides that take precedence over the file."""

    changes: list[str]
    overrides: list[str]


@dataclass(frozen=True)
class BgpNeighbour:
    """A BGP session; ``number`` is the neighbour's AS.  ``uptime_s`` is None and ``reason`` set while it is down."""

    address: str
    number: int
    state: str
    uptime_s: float | None
    prefixes: int
    bfd: str
    reason: str


@dataclass(frozen=True)
class Bgp:
    """The announced prefixes, those with a longer AS path, and the sessions; ``held``: withdrawn by command."""

    version: int
    speaker: str
    prefixes: list[str]
    last_resort: list[str]
    neighbours: list[BgpNeighbour]
    held: bool


@dataclass(frozen=True)
class HistoryPoint:
    """Packets, bytes and new flows in one second since 1970; ``drops``: packets by verdict, without zeros."""

    second: int
    packets: float
    bytes: float
    new_flows: float
    drops: dict[str, float]


@dataclass(frozen=True)
class HistoryEvent:
    """A line of the daemon's log; ``time`` in seconds since 1970, ``level``: info, warning or error."""

    time: float
    level: str
    text: str


@dataclass(frozen=True)
class History(ProgramAnswer):
    """The last 15 minutes, oldest first.  A second without a point is unknown."""

    points: list[HistoryPoint]
    events: list[HistoryEvent]


@dataclass(frozen=True)
class TraceStart(ProgramAnswer):
    """The first answer to Trace.  ``unseen``: why frames of the kernel programs are not traced, or empty."""

    interface: str
    unseen: str


@dataclass(frozen=True)
class SentFrame:
    """A frame that the slow path sent: ``time_ns`` since 1970, ``frame`` in base64, ``length`` in bytes on the wire."""

    time_ns: int
    interface: str
    frame: str
    length: int


@dataclass(frozen=True)
class SlowPathReport:
    """The slow path's counters that changed, and the frames that it sent."""

    did: list[str]
    sent: list[SentFrame]


@dataclass(frozen=True)
class TracedFrame:
    """A frame as it came, its verdict, and as it ``left``; frames are base64, times nanoseconds since 1970."""

    program: str
    time_ns: int
    interface: str
    line: str
    frame: str
    length: int
    verdict: str
    kind: str
    dropped: bool
    service: str | None
    backend: str | None
    left: str | None
    left_by: str | None
    left_ns: int | None
    left_length: int | None
    is_reply: bool
    tunnel_ports: dict[str, int]
    slowpath: SlowPathReport | None


@dataclass(frozen=True)
class TraceBatch:
    """Matching frames; ``skipped`` frames were not examined, and ``lost`` matches not kept, since the last answer."""

    frames: list[TracedFrame]
    skipped: int
    lost: int
