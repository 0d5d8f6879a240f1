"""What the page can change: overrides of backends and, with a manager, the pool's configuration.

An override goes to the pool's manager if the muxes are reached through one, otherwise to each mux.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from lbmux.api.answers import Overridden
from lbmux.api.channel import Place
from lbmux.api.control_client import ControlClient
from lbmux.api.protocol import from_plain
from lbmux.api.requests import Override, Request, SetWeight
from lbmux.errors import ControlError, LbmuxError
from lbmux.manager.api_client import ApiClient
from lbmux.manager.api_models import ApplyAnswer, ApplyRequest, OverrideRequest, OverridesAnswer
from lbmux.manager.relayed_node import RelayedNode
from lbmux.manager.stored_overrides import describe

MOST_WEIGHT = 65535


@dataclass(frozen=True)
class BackendAction:
    """A button of a backend's view.

    ``weight``: for `weight`, from 0 to 65535, or None for the file's.  ``reason``: for the manager's list of overrides.
    """

    action: Literal["drain", "disable", "enable", "weight"]
    service: str
    backend: str
    weight: int | None = None
    reason: str = ""

    @classmethod
    def parse(cls, text: bytes) -> "BackendAction":
        """Parse a JSON object with these fields; raise LbmuxError, with the field's name, if it is not one."""
        try:
            given = json.loads(text)
            unknown = set(given) - {field.name for field in fields(cls)}
            action: BackendAction = from_plain(cls, given)
        except (ValueError, TypeError, RecursionError) as error:
            raise LbmuxError(f"not a change of a backend: {error}") from None
        if unknown:
            raise LbmuxError(f"not a change of a backend: {', '.join(sorted(unknown))}: is not a known field")
        if action.weight is not None and not 0 <= action.weight <= MOST_WEIGHT:
            raise LbmuxError(f"not a change of a backend: weight: should be from 0 to {MOST_WEIGHT}")
        return action


def manager_of(places: Sequence[Place]) -> ApiClient | None:
    """Return the client of the pool's manager, or None for muxes on this machine."""
    return next((place.client for place in places if isinstance(place, RelayedNode)), None)


def override(action: BackendAction, places: Sequence[Place]) -> list[str]:
    """Put an override in force; return what changed.  Raise LbmuxError if the manager or a mux refuses it."""
    manager = manager_of(places)
    if manager is not None:
        answer = manager.post("/v1/overrides", OverrideRequest(**asdict(action)), OverridesAnswer)
        return [f"{one.service}/{one.backend}: {describe(one)}" for one in answer.overrides] or ["as in the file"]
    done, refused = list[str](), list[str]()
    for place in places:
        try:
            done += _states(place, ControlClient(place).ask(_request(action)))
        except ControlError as error:
            refused.append(str(error))
    if refused:
        raise LbmuxError("; ".join([*refused, *done]))
    return done


def apply(text: str, places: Sequence[Place], *, dry_run: bool) -> ApplyAnswer:
    """Apply a configuration to the pool, or report what would change.  Raise LbmuxError if the manager refuses it."""
    manager = manager_of(places)
    if manager is None:
        raise LbmuxError("only a manager applies a configuration to a pool: start `lbmux web` with --manager")
    return manager.post("/v1/config", ApplyRequest(file=text, message="from the page", dry_run=dry_run), ApplyAnswer)


def _request(action: BackendAction) -> Request[Overridden]:
    if action.action == "weight":
        return SetWeight(action.backend, action.weight, action.service)
    return Override(action.backend, None if action.action == "enable" else action.action, action.service)


def _states(place: Place, answer: Overridden) -> Iterator[str]:
    name = place.stem if isinstance(place, Path) else place.name
    for one in answer.health:
        yield f"{name}: {one.service}/{one.backend} is {one.state}, weight {one.weight}"
