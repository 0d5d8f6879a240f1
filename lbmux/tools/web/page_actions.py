"""What the page can change: overrides of backends and, with a manager, the pool's configuration.

An override goes to the pool's manager if the muxes are reached through one, otherwise to each mux.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lbmux.api.answers import Overridden
from lbmux.api.channel import ControlTarget
from lbmux.api.control_client import ControlClient
from lbmux.api.protocol import from_plain
from lbmux.api.requests import Override, Request, SetWeight
from lbmux.backends.overrides import OverriddenState
from lbmux.errors import ControlError, LbmuxError
from lbmux.manager.api_client import ApiClient
from lbmux.manager.api_models import ApplyAnswer, ApplyRequest, OverrideRequest, OverridesAnswer
from lbmux.manager.relayed_node import RelayedNode
from lbmux.manager.stored_overrides import describe

ADMIN_STATES: dict[str, OverriddenState | None] = {"drain": "drain", "disable": "disable", "enable": None}
ACTIONS = (*ADMIN_STATES, "weight")
"""The buttons of a backend's view."""


@dataclass(frozen=True)
class Visitor:
    """What a visitor may change; ``manager``: the pool's manager, which knows the visitor's role.

    ``may_not``: the answer to one who may change nothing.
    """

    can_override: bool = False
    can_apply: bool = False
    manager: ApiClient | None = None
    may_not: str = ""
    name: str = ""
    """The name of the token; empty without a login."""

    @property
    def can(self) -> dict[str, bool]:
        return {"override": self.can_override, "apply": self.can_apply}


def parse(text: bytes) -> OverrideRequest:
    """Parse the JSON of a button; raise LbmuxError, with the field's name, if it is not one."""
    try:
        request: OverrideRequest = from_plain(OverrideRequest, json.loads(text))
    except (ValueError, RecursionError) as error:
        raise LbmuxError(f"not a change of a backend: {error}") from None
    if request.action not in ACTIONS or request.service is None or request.backend is None:
        raise LbmuxError(f"not a change of a backend: give service, backend and one of {', '.join(ACTIONS)}")
    return request


def manager_of(places: Sequence[ControlTarget]) -> ApiClient | None:
    """Return the client of the pool's manager, or None for muxes on this machine."""
    return next((place.client for place in places if isinstance(place, RelayedNode)), None)


def override(request: OverrideRequest, manager: ApiClient | None, places: Sequence[ControlTarget]) -> list[str]:
    """Put an override in force at the manager, or without one at the muxes; return what changed.

    Raise LbmuxError if the manager or a mux refuses it.
    """
    if manager is not None:
        answer = manager.post("/v1/overrides", request, OverridesAnswer)
        return [f"{one.service}/{one.backend}: {describe(one)}" for one in answer.overrides] or ["as in the file"]
    done, refused = list[str](), list[str]()
    for place in places:
        try:
            done += _states(place, ControlClient(place).ask(_for_a_mux(request)))
        except ControlError as error:
            refused.append(str(error))
    if refused:
        raise LbmuxError("; ".join([*refused, *done]))
    return done


def apply(text: str, manager: ApiClient | None, *, dry_run: bool) -> ApplyAnswer:
    """Apply a configuration to the pool, or report what would change.  Raise LbmuxError if the manager refuses it."""
    if manager is None:
        raise LbmuxError("only a manager applies a configuration to a pool: start `lbmux web` with --manager")
    return manager.post("/v1/config", ApplyRequest(file=text, message="from the page", dry_run=dry_run), ApplyAnswer)


def _for_a_mux(request: OverrideRequest) -> Request[Overridden]:
    if request.action == "weight":
        return SetWeight(str(request.backend), request.weight, request.service)
    return Override(request.backend, ADMIN_STATES[request.action], request.service)


def _states(place: ControlTarget, answer: Overridden) -> Iterator[str]:
    name = place.stem if isinstance(place, Path) else place.name
    for one in answer.health:
        yield f"{name}: {one.service}/{one.backend} is {one.state}, weight {one.weight}"
