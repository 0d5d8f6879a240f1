"""Requests on the control socket, as frozen dataclasses: each names its command and the type of its answer."""

from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args

from lbmux.api import answers

Answer = TypeVar("Answer")


class Request(Generic[Answer]):
    """A request.  Its fields are its arguments; fields with a default are optional."""

    command: ClassVar[str]
    answer: ClassVar[Any]
    """The type of the answer, or of each answer of a stream."""
    changes: ClassVar[bool]
    """Whether it changes anything at the daemon."""

    def __init_subclass__(cls, command: str = "", changes: bool = False) -> None:
        super().__init_subclass__()
        if command:
            cls.command, cls.changes = command, changes
            (cls.answer,) = get_args(cls.__orig_bases__[0])  # type: ignore[attr-defined]


class ListRequest(Request[Answer]):
    """A request for a list that arrives in parts; the list is the answer's field with the name of the command."""


@dataclass(frozen=True)
class GetServices(ListRequest[answers.Services], command="services"):
    """VIPs, their Maglev tables, traffic and flows."""


@dataclass(frozen=True)
class GetBackends(ListRequest[answers.Backends], command="backends"):
    """Backends in the tables, their traffic and flows."""


@dataclass(frozen=True)
class GetNeighbours(ListRequest[answers.Neighbours], command="neighbours"):
    """The hosts that a mux tunnels to."""


@dataclass(frozen=True)
class GetHealth(ListRequest[answers.Health], command="health"):
    """The states of all backends, also of those that are not in the tables."""


@dataclass(frozen=True)
class GetFlows(Request[answers.Flows], command="flows"):
    """Stream live flows; ``filter`` and ``sort`` as for `lbmux show flows`."""

    filter: str = ""
    sort: str = ""
    limit: int | None = None


@dataclass(frozen=True)
class CountFlows(Request[answers.FlowCount], command="flow_count"):
    """The number of live flows that match."""

    filter: str = ""


@dataclass(frozen=True)
class GetCounters(Request[answers.Counters], command="counters"):
    """Packets by verdict, look-ups, losses."""


@dataclass(frozen=True)
class GetRuntime(Request[answers.Runtime], command="runtime"):
    """The process, its driver, and the sizes of its tables."""


@dataclass(frozen=True)
class GetLayout(Request[answers.Layout], command="layout"):
    """The tables' layout, and the services of a VIP."""

    vip: str


@dataclass(frozen=True)
class ReadMemory(Request[str], command="memory"):
    """Bytes of a table, as base64."""

    region: str
    at: int
    length: int


@dataclass(frozen=True)
class GetConfig(Request[str], command="config"):
    """The file's configuration as it was loaded, in JSON."""


@dataclass(frozen=True)
class PlanRevision(Request[answers.Planned], command="plan"):
    """Plan the tables for a revision of the manager, without putting it in force.

    ``file`` is compressed (zlib) and in base64; ``overrides`` have the fields of the manager's.
    """

    file: str
    overrides: list[dict[str, Any]]


@dataclass(frozen=True)
class CountConnections(Request[answers.ConnectionCounts], command="connections"):
    """Count the live connections of a host's backends in its sockets."""


@dataclass(frozen=True)
class GetRoundTrips(ListRequest[answers.RoundTrips], command="round_trips"):
    """Round-trip times of a host's clients, by prefix."""


@dataclass(frozen=True)
class Reload(Request[answers.Reloaded], command="reload", changes=True):
    """Reload the configuration file."""


@dataclass(frozen=True)
class Override(Request[answers.Overridden], command="override", changes=True):
    """Drain, disable or remove a backend; None enables it.

    Without ``service``, in all services that have it; with null for ``backend``, all backends of the service.
    ``for_s``: how long it lasts; ``deadline_s``: after which time a drained backend is disabled, in seconds.
    """

    backend: str | None
    override: Literal["drain", "disable", "remove"] | None = None
    service: str | None = None
    for_s: float | None = None
    deadline_s: float | None = None


@dataclass(frozen=True)
class SetWeight(Request[answers.Overridden], command="weight", changes=True):
    """Set a backend's weight; None restores the file's."""

    backend: str
    weight: int | None = None
    service: str | None = None


@dataclass(frozen=True)
class AddBackend(Request[answers.Overridden], command="add", changes=True):
    """Add a backend to a service; ``backend`` has the fields of a backend in the configuration file."""

    service: str
    backend: dict[str, Any]


@dataclass(frozen=True)
class GetBgp(Request[answers.Bgp], command="bgp"):
    """The announced routes and the sessions."""


@dataclass(frozen=True)
class HoldRoutes(Request[answers.Bgp], command="hold", changes=True):
    """Withdraw routes (``held``), or announce them, perhaps with a longer path or as prefixes around the VIPs.

    Null for ``vip``: those of all VIPs.
    """

    held: bool
    prepended: int = 0
    length: int = 32
    length6: int = 128
    vip: str | None = None


@dataclass(frozen=True)
class Parole(Request[answers.Paroled], command="parole", changes=True):
    """End the black hole of a VIP at once, and forget its relapses."""

    vip: str


@dataclass(frozen=True)
class GetHistory(Request[answers.History], command="history"):
    """The last 15 minutes of traffic, a point a second, and the log's lines, after ``since`` in seconds since 1970."""

    since: float = 0.0


@dataclass(frozen=True)
class Trace(Request[answers.TraceStart | answers.TraceBatch], command="trace"):
    """Stream frames that match the filter of `lbmux trace`."""

    filter: str = ""


READING = frozenset(
    one.command
    for one in [*vars().values()]
    if isinstance(one, type) and issubclass(one, Request) and not getattr(one, "changes", True)
)
"""Commands that change nothing."""
