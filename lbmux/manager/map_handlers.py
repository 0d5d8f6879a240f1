"""Handlers of the API for maps of `lbmux steer`, and the models of their requests and answers."""

from typing import Annotated

from pydantic import Field

from lbmux.config.field_types import Model
from lbmux.manager.api_handlers import Call
from lbmux.manager.documents import Message
from lbmux.manager.map_revisions import MapProposal, MapRevision, apply_map, list_maps, read_map

Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class MapAnswer(Model):
    revision: MapRevision
    map: str
    """The map in JSON, as `lbmux steer -o` writes it."""


class MapsAnswer(Model):
    maps: tuple[MapRevision, ...]
    """Newest first."""


class MapRequest(Model):
    map: str
    """The map in JSON."""
    base: Annotated[int, Field(ge=0)]
    """The revision that it was computed from; 0: there was none."""
    users: Number
    moved: Number
    """Users whose PoP changes."""
    rtt_ms: Number
    """The users' mean round-trip time by this map."""
    rtt_ms_before: Number | None = None
    message: Message = ""
    dry_run: bool = False
    """Check the map, and change nothing."""
    restores: Annotated[int, Field(ge=1)] | None = None
    """The earlier map that this one is, if `lbmux steer rollback` restores it."""


async def get_map(call: Call) -> Model:
    revision, text = await read_map(call.manager.store, call.number("revision"))
    return MapAnswer(revision=revision, map=text)


async def maps(call: Call) -> Model:
    stored, limit = await list_maps(call.manager.store), call.number("limit")
    return MapsAnswer(maps=tuple(stored[:limit]))


async def post_map(call: Call) -> Model:
    body: MapRequest = call.body
    call.check_service(None)
    proposal = MapProposal(
        body.map, body.base, body.users, body.moved, body.rtt_ms, body.rtt_ms_before, body.message, body.dry_run,
        body.restores,
    )  # fmt: skip
    manager = call.manager
    applied = await apply_map(manager.pool, manager.store, proposal, call.caller, manager.clock())
    return MapsAnswer(maps=(applied,))
