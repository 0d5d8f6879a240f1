"""Models of what the manager stores and answers: revisions, overrides, events, nodes. Times are seconds since 1970."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from lbmux.addresses import Address
from lbmux.backends.overrides import OverriddenState
from lbmux.config.field_types import Model, Name
from lbmux.config.models import Backend

MAX_MESSAGE, MAX_NAME = 500, 128
Message = Annotated[str, Field(max_length=MAX_MESSAGE)]


class Revision(Model):
    """One version of the pool's configuration file."""

    number: int
    """Counts from 1."""
    author: str
    """The name of the token that applied it."""
    time: float
    message: str
    digest: str
    """The first 16 hexadecimal digits of the file's SHA-256."""
    services: int
    backends: int
    forced: bool = False
    """Whether it was applied with `--force`."""
    rollback_of: int | None = None
    """The revision that it restores."""


class StoredOverride(Model):
    """An operator's override of one backend, with its author, time, reason and end."""

    service: Name
    backend: Name
    admin_state: OverriddenState | None = None
    weight: int | None = None
    added: Backend | None = None
    since: float
    by: str
    """The name of the token that ordered it."""
    reason: str = ""
    until: float | None = None
    """When it ends by itself; null: never."""
    deadline: float | None = None
    """When a drained backend is disabled, which moves what it still has; null: never."""


class Announcement(Model):
    """How a route is announced (lbmux.bgp.announced)."""

    held: bool = False
    """Whether it is not announced."""
    prepended: Annotated[int, Field(ge=0, le=10)] = 0
    """How often the own AS is added to the path."""
    length: Annotated[int, Field(ge=8, le=32)] = 32
    length6: Annotated[int, Field(ge=16, le=128)] = 128
    """The length of the announced prefix around an IPv6 VIP."""
    black_hole: bool = False
    """Whether it has the community BLACKHOLE (RFC 7999)."""


class RouteOverride(Model):
    """An operator's withdrawal of a VIP, or another announcement of it, with author, time, reason and end."""

    vip: Address | None = None
    """null: all VIPs."""
    node: str | None = None
    """null: all muxes and edges."""
    announcement: Announcement
    since: float
    by: str
    """The name of the token that ordered it."""
    reason: str = ""
    until: float | None = None
    """When it ends by itself; null: never."""


class StoredOverrides(Model):
    """All overrides in force; each change counts `version` up."""

    version: int = 0
    overrides: tuple[StoredOverride, ...] = ()
    routes: tuple[RouteOverride, ...] = ()


class Canary(Model):
    """The mux that has a revision before all other nodes, until the revision goes to all of them or is rolled back."""

    mux: str
    revision: int
    base: int
    """The revision that the others have."""
    soak_s: float
    dropped: tuple[StoredOverride, ...] = ()
    """Overrides that the revision makes obsolete; the others still have them."""


class Event(Model):
    """An event in the pool, for the audit log and `lbmux show events`."""

    number: int
    time: float
    kind: Literal[
        "apply", "rollback", "override", "expiry", "token", "join", "refused", "primary", "canary", "conflict", "map",
        "black_hole",
    ]  # fmt: skip
    by: str
    """The name of a token or of a node."""
    origin: str
    """The address that the request came from; empty if there was none."""
    text: str
    revision: int | None = None


class NodeReport(Model):
    """A node's last report about the state that it was sent."""

    node: str
    role: str
    revision: int
    """The configuration that the report is about."""
    overrides: int
    """The version of the overrides that the report is about."""
    in_force: int = 0
    """The revision in force; 0: none, or a node of an older version refused the last one."""
    refused: str = ""
    """Why the node refuses the state that the report is about; empty: it is in force."""
    refusals: int = 0
    """Number of states that it refused since it connected."""
    time: float
    """Time of the report."""
    seen: float = 0.0
    """Time of its last message."""
    connected: bool = True
    manager: str = ""
    """The URL of the manager to which it is, or was, connected."""
    version: str = ""
    """The version of lbmux."""
    certificate_until: float | None = None


class Impact(Model):
    """What a change would do, as the live nodes count it."""

    connections: int = 0
    """Live connections, from the sockets of the hosts."""
    moving: int = 0
    """Those that would go to another backend, or break."""
    remaining: int = 0
    """Those that stay with a removed backend until they end."""
    slots: Mapping[str, float] = Field(default_factory=dict)
    """The share of a service's slots that get another backend: the largest of all muxes."""
    refused: Mapping[str, str] = Field(default_factory=dict)
    """Why muxes would refuse it."""
    silent: tuple[str, ...] = ()
    """Nodes that did not answer: they are not counted."""

    @property
    def moved(self) -> float | None:
        """The share of the live connections that would move; None if there are none."""
        return self.moving / self.connections if self.connections else None


class Rollout(Model):
    """The nodes on which a revision is in force."""

    in_force: int
    nodes: int
    """All nodes that are known."""
    refused: Mapping[str, str] = Field(default_factory=dict)
    """The reason by node."""
