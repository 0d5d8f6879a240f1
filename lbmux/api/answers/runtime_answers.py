"""A daemon's process, its tables, and their layout for clients that read them."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from lbmux.api.answers.program_answer import ProgramAnswer


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


@dataclass(frozen=True)
class Admitted:
    """Which shares of a VIP's new flows and of its other packets a mux admits."""

    new_flows: float
    others: float


@dataclass(frozen=True)
class BlackHole:
    """A VIP whose packets a mux drops: for how many seconds already, and for how many more at most; how often it has
    relapsed, and how many packets to it have reached the mux's data path and were dropped, also in earlier ones.

    ``upstream``: routers are asked to drop them.
    """

    seconds: float
    left_s: float
    relapses: int
    dropped: int
    upstream: bool = False


@dataclass(frozen=True)
class Paroled:
    """A VIP that was a black hole until now."""

    version: int
    vip: str


@dataclass(frozen=True)
class Overload:
    """Whether a mux gets more packets than it can forward: for how long now (None: it does not), the last reason, and
    how often it has begun.

    ``dropped``: packets dropped before the ring since the start, as estimated; ``admitted``: the VIPs over their fair
    share now; ``black_holes``: the VIPs whose packets are all dropped now; ``black_holes_begun``: how many there were.
    """

    seconds: float | None
    reason: str
    times: int
    dropped: int = 0
    admitted: dict[str, Admitted] = field(default_factory=dict)
    black_holes: dict[str, BlackHole] = field(default_factory=dict)
    black_holes_begun: int = 0


@dataclass(frozen=True, kw_only=True)
class Runtime(ProgramAnswer):
    """A daemon's process.  ``mode``, ``egress`` and ``sockets_elsewhere`` are an agent's, ``host_forwarding``
    and ``overload`` a mux's.

    ``sockets_elsewhere``: the DIPs in other network namespaces whose sockets the agent sees.
    """

    OMITTED_IF_NONE: ClassVar[frozenset[str]] = frozenset(
        ("mode", "interface_state", "egress", "egress_missing", "sockets_elsewhere", "host_forwarding", "overload")
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
    overload: Overload | None = None
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
