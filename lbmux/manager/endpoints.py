"""The endpoints of the manager's API: the list from which routes and the OpenAPI document are made."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lbmux.config.field_types import Model
from lbmux.manager import api_handlers as handlers
from lbmux.manager import api_models as api
from lbmux.manager import map_handlers
from lbmux.manager.api_handlers import Call
from lbmux.manager.black_hole_handler import black_hole
from lbmux.manager.take_over import take_over
from lbmux.manager.tokens import AccessRole

SMALL_BYTES, LARGE_BYTES = 64 * 1024, 24 * 1024 * 1024
"""Limits of a request's body: most requests; a configuration file as a JSON string."""
Access = AccessRole | Literal["public", "node"]


@dataclass(frozen=True)
class Endpoint:
    """``access``: the role that a token needs; `node`: a node's certificate.  ``writes``: only the primary answers."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    access: Access
    handle: Callable[[Call], Awaitable[Model]]
    answer: type[Model]
    summary: str
    request: type[Model] | None = None
    writes: bool = False
    asks_primary: bool = False
    """Whether the request goes to the primary while there is one, because it has the reports of all nodes."""
    most_bytes: int = SMALL_BYTES
    query: Mapping[str, str] = field(default_factory=dict)


ENDPOINTS = (
    Endpoint("GET", "/v1/status", "viewer", handlers.status, api.StatusAnswer, "This manager, and the pool's state."),
    Endpoint(
        "GET", "/v1/config", "viewer", handlers.get_config, api.ConfigAnswer, "The file of a revision.",
        query={"revision": "The revision; default: the current one."},
    ),
    Endpoint(
        "POST", "/v1/config", "operator", handlers.apply, api.ApplyAnswer, "Apply a file.", api.ApplyRequest,
        writes=True, most_bytes=LARGE_BYTES,
    ),
    Endpoint(
        "POST", "/v1/rollback", "operator", handlers.rollback, api.ApplyAnswer, "Restore a revision.",
        api.RollbackRequest, writes=True,
    ),
    Endpoint(
        "GET", "/v1/revisions", "viewer", handlers.revisions, api.RevisionsAnswer, "Revisions, newest first.",
        asks_primary=True,
    ),
    Endpoint(
        "GET", "/v1/events", "viewer", handlers.events, api.EventsAnswer, "Events, newest first.",
        query={"limit": f"How many; default: {handlers.EVENTS_SHOWN}."},
    ),
    Endpoint(
        "GET", "/v1/map", "viewer", map_handlers.get_map, map_handlers.MapAnswer, "A map of `lbmux steer`.",
        query={"revision": "The revision; default: the current one."},
    ),
    Endpoint(
        "GET", "/v1/maps", "viewer", map_handlers.maps, map_handlers.MapsAnswer, "Maps, newest first.",
        query={"limit": "How many; default: all."},
    ),
    Endpoint(
        "POST", "/v1/map", "operator", map_handlers.post_map, map_handlers.MapsAnswer, "Make a map the current one.",
        map_handlers.MapRequest, writes=True, most_bytes=LARGE_BYTES,
    ),
    Endpoint("GET", "/v1/overrides", "viewer", handlers.overrides, api.OverridesAnswer, "Overrides in force."),
    Endpoint(
        "POST", "/v1/overrides", "operator", handlers.override, api.OverridesAnswer,
        "Drain, disable, remove, enable, weigh or add a backend.", api.OverrideRequest, writes=True,
    ),
    Endpoint(
        "POST", "/v1/routes", "operator", handlers.announce, api.OverridesAnswer, "Withdraw or announce a VIP.",
        api.RouteRequest, writes=True,
    ),
    Endpoint(
        "GET", "/v1/nodes", "viewer", handlers.nodes, api.NodesAnswer, "The pool's nodes.", asks_primary=True,
    ),
    Endpoint("GET", "/v1/tokens", "admin", handlers.tokens, api.TokensAnswer, "Tokens, without their secrets."),
    Endpoint(
        "POST", "/v1/tokens", "admin", handlers.make_token, api.TokenAnswer, "Make a token.", api.TokenRequest,
        writes=True,
    ),
    Endpoint(
        "DELETE", "/v1/tokens", "admin", handlers.revoke_token, api.Done, "Revoke a token.", writes=True,
        query={"id": "The token's id."},
    ),
    Endpoint(
        "POST", "/v1/join-tokens", "admin", handlers.make_join_token, api.TokenAnswer, "Make a one-time token.",
        api.JoinTokenRequest, writes=True,
    ),
    Endpoint("GET", "/v1/ca", "public", handlers.ca, api.CaAnswer, "The certificate of the pool's CA."),
    Endpoint(
        "POST", "/v1/join", "public", handlers.join, api.CertificateAnswer, "Get a certificate by a one-time token.",
        api.JoinRequest, writes=True,
    ),
    Endpoint(
        "POST", "/v1/renew", "node", handlers.renew, api.CertificateAnswer, "Renew a node's certificate.",
        api.RenewRequest,
    ),
    Endpoint(
        "POST", "/v1/local-overrides", "node", take_over, api.TakenOver, "Take over a mux's own overrides.",
        api.LocalOverridesRequest, writes=True,
    ),
    Endpoint(
        "POST", "/v1/black-holes", "node", black_hole, api.BlackHoleAnswer, "Report a mux's black hole.",
        api.BlackHoleRequest, writes=True,
    ),
)  # fmt: skip
