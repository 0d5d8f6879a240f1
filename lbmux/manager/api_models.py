"""Requests and answers of the manager's API."""

from typing import Annotated, Any, Literal

from pydantic import Field

from lbmux.addresses import Address
from lbmux.backends.overrides import OverriddenState
from lbmux.config.field_types import Model, Name
from lbmux.manager.documents import (
    Announcement,
    Canary,
    Event,
    Impact,
    Message,
    NodeReport,
    Revision,
    Rollout,
    RouteOverride,
    StoredOverride,
)
from lbmux.manager.tokens import AccessRole

Duration = Annotated[float, Field(gt=0, le=366 * 86400, allow_inf_nan=False)]
"""Seconds."""


class ApplyRequest(Model):
    """A configuration file to put in force."""

    file: str
    """The file in YAML; a revision in its first line must be the current one."""
    name: Message = "services.yaml"
    """The file's name, for messages about its lines."""
    service: Name | None = None
    """Only this service of the file; null: the whole file."""
    message: Message = ""
    force: bool = False
    """Make the change even if it violates a guard rail."""
    dry_run: bool = False
    """Report what would change, and change nothing."""
    canary: str | None = None
    """The mux that gets the revision first; null: all nodes get it at once."""
    soak_s: Duration = 30.0
    """How long the canary has it before all other nodes."""


class RollbackRequest(Model):
    revision: Annotated[int, Field(ge=1)] | None = None
    """The revision to restore; null: the one before the current."""
    message: Message = ""
    force: bool = False
    dry_run: bool = False


class ApplyAnswer(Model):
    revision: Revision | None
    """The new revision; null: nothing was changed."""
    changes: tuple[str, ...]
    needs_force: tuple[str, ...]
    """Guard rails that the change violates."""
    impact: Impact | None = None
    """What live nodes say about it; null: they were not asked."""


class ConfigAnswer(Model):
    revision: Revision
    file: str
    """With the revision in the first line."""


class RevisionLine(Model):
    revision: Revision
    rollout: Rollout


class RevisionsAnswer(Model):
    revisions: tuple[RevisionLine, ...]
    """Newest first."""


class EventsAnswer(Model):
    events: tuple[Event, ...]
    """Newest first."""


class OverrideRequest(Model):
    """A command about a backend."""

    action: Literal["drain", "disable", "remove", "enable", "weight", "add"]
    backend: Name | None = None
    """The backend's name; null for `add`, and for all backends of `service`."""
    service: Name | None = None
    """Only in this service; null: in all services that have the backend."""
    host: str | None = None
    """All backends of the host with this address, in place of `backend`; not for `weight` and `add`."""
    weight: int | None = None
    """For `weight`: the new weight; null: the file's."""
    added: dict[str, Any] | None = None
    """For `add`: the backend's fields, as in the file."""
    reason: Message = ""
    for_s: Duration | None = None
    """How long the override lasts; null: until another command."""
    deadline_s: Duration | None = None
    """For `drain`: after which time the backend is disabled, which moves the flows that it still has; null: never."""
    force: bool = False


class RouteRequest(Model):
    """A command about the announcement of a VIP."""

    action: Literal["withdraw", "announce"]
    vip: Address | None = None
    """null: all VIPs."""
    node: Name | None = None
    """Only at this mux or edge; null: at all."""
    announcement: Announcement = Announcement()
    """For `announce`: how."""
    reason: Message = ""
    for_s: Duration | None = None
    """How long it lasts; null: until another command."""


class OverridesAnswer(Model):
    version: int
    overrides: tuple[StoredOverride, ...] = ()
    routes: tuple[RouteOverride, ...] = ()
    """Overrides of announcements; after a command about one, those that act on the same VIP at the same node."""


class LocalOverride(Model):
    """An override that was given at a mux's own socket while there was no primary."""

    service: Name
    backend: Name
    admin_state: OverriddenState | None = None
    weight: int | None = None
    added: bool = False
    """Whether the backend was added by command."""
    since: float
    held_admin_state: OverriddenState | None = None
    """What the mux had from the pool."""
    held_weight: int | None = None


class LocalRoute(Model):
    """A withdrawal or announcement of a VIP that was given at a mux's own socket while there was no primary."""

    vip: Address | None
    """null: all VIPs."""
    announcement: Announcement
    held: Announcement
    """What the mux had from the pool."""
    since: float


class LocalOverridesRequest(Model):
    overrides: Annotated[tuple[LocalOverride, ...], Field(max_length=256)] = ()
    routes: Annotated[tuple[LocalRoute, ...], Field(max_length=256)] = ()

    @property
    def is_empty(self) -> bool:
        return not self.overrides and not self.routes


class BlackHoleRequest(Model):
    """A VIP became a black hole at a mux (docs/overload.md), or is none any more."""

    vip: Address
    begins: bool
    reason: Message
    upstream_s: Duration | None = None
    """How long routers should drop the VIP's packets, since the black hole does not help; null: they need not."""


class BlackHoleAnswer(Model):
    """The report is among the pool's events."""

    vip: Address
    upstream: bool
    """Whether all muxes withdraw the VIP, or announce it as a black hole."""


class TakenOver(Model):
    taken: tuple[str, ...]
    conflicts: tuple[str, ...]
    """Overrides that are not in force, with the reason."""


class NodesAnswer(Model):
    nodes: tuple[NodeReport, ...]
    """Nodes that are, or were, connected: at the primary those of the pool, elsewhere those of this manager."""


class StatusAnswer(Model):
    pool: str
    name: str
    version: str
    is_primary: bool
    primary: str
    """The primary's URL; empty if there is no primary."""
    epoch: int | None
    revision: int
    overrides: int
    canary: Canary | None = None
    """The mux that has the revision first; null: all nodes get it."""


class TokenRequest(Model):
    name: Annotated[str, Field(min_length=1, max_length=128)]
    role: AccessRole
    services: tuple[Name, ...] = ()
    for_s: Duration | None = None


class TokenAnswer(Model):
    id: str
    token: str
    """The token; it is not stored, so it is shown only once."""


class TokenLine(Model):
    id: str
    name: str
    role: AccessRole
    services: tuple[str, ...]
    created: float
    until: float | None


class TokensAnswer(Model):
    tokens: tuple[TokenLine, ...]


class JoinTokenRequest(Model):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$")]
    """The node's name."""
    role: Literal["manager", "node"] = "node"
    for_s: Duration = 3600.0


class JoinRequest(Model):
    token: Message
    request: Annotated[str, Field(max_length=16384)]
    """Certificate signing request in PEM."""


class RenewRequest(Model):
    request: Annotated[str, Field(max_length=16384)]


class CertificateAnswer(Model):
    pool: str
    name: str
    certificate: str
    ca: str


class CaAnswer(Model):
    pool: str
    ca: str


class Done(Model):
    done: Literal[True] = True


class ErrorAnswer(Model):
    error: str
    problems: tuple[str, ...] = ()
    """Lines of the error, if it has several."""
