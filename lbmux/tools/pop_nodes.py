"""The agents and muxes of PoPs, for `lbmux steer run`: round-trip times come from agents, muxes follow the map by BGP.

They are control sockets on this machine, or nodes of the pool, whose manager passes requests on.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from lbmux.api.channel import ControlTarget, target_name
from lbmux.api.control_client import ControlClient
from lbmux.api.requests import GetRoundTrips, HoldRoutes
from lbmux.config.steering_models import Pop, Steering
from lbmux.errors import LbmuxError
from lbmux.manager.api_client import ApiClient
from lbmux.manager.api_models import NodesAnswer, OverridesAnswer, RouteRequest
from lbmux.manager.relayed_node import RelayedNode
from lbmux.steering.latency_file import Reported, update
from lbmux.steering.steering_map import Routes, SteeringMap

TIMEOUT_S, REPEAT_S = 5.0, 30.0
"""How long a node may take to answer, and how often muxes get their routes again: one that restarts announces all."""


class PopNodes:
    """``client``: the pool's manager, if there is one. ``said``: gets what is wrong with a node, or an empty text."""

    def __init__(self, client: ApiClient | None, said: Callable[[str, str], None]) -> None:
        self._client, self._said = client, said
        self._collect_at = 0.0
        self._announced: dict[str, tuple[Routes, float]] = {}
        self._stored: dict[str, Routes] = {}
        """What the manager stores for each node."""

    async def collect(self, steering: Steering, relative_to: Path) -> None:
        """Put what agents report into the latency file, every ``collect_s``; raise LbmuxError if that fails."""
        if time.monotonic() < self._collect_at:
            return
        self._collect_at = time.monotonic() + steering.collect_s
        for pop in steering.pops:
            if lines := await asyncio.to_thread(self._reports, pop, relative_to):
                await asyncio.to_thread(update, relative_to / steering.latency, pop.name, lines)

    async def announce(self, steering: Steering, in_force: SteeringMap, relative_to: Path) -> None:
        """Have the muxes of each PoP follow the map: at once after a change, and every 30 s in any case."""
        for pop in steering.pops:
            routes, (before, at) = in_force.routes_of(pop.name), self._announced.get(pop.name, (None, 0.0))
            if routes != before or time.monotonic() > at + REPEAT_S:
                self._announced[pop.name] = routes, time.monotonic()
                await asyncio.to_thread(self._announce, pop, routes, relative_to)

    def _reports(self, pop: Pop, relative_to: Path) -> list[Reported]:
        lines, places = list[Reported](), _sockets(pop.agents, relative_to)
        for name in self._nodes(pop.agents):
            assert self._client is not None
            places.append(RelayedNode(self._client, name))
        for place in places:
            try:
                lines += ControlClient(place, TIMEOUT_S).whole(GetRoundTrips()).round_trips
                self._said(str(target_name(place)), "")
            except LbmuxError as error:
                self._said(str(target_name(place)), f"PoP {pop.name}: {error}: its last round trips stay")
        return lines

    def _announce(self, pop: Pop, routes: Routes, relative_to: Path) -> None:
        """Ask the muxes on this machine; for nodes of the pool store it at the manager, unless it is there already."""
        asked: dict[str, Callable[[], object]] = {
            str(target_name(place)): partial(ControlClient(place, TIMEOUT_S).ask, hold_request(routes))
            for place in _sockets(pop.muxes, relative_to)
        }
        for name in self._nodes(pop.muxes):
            if self._stored.get(name) != routes:
                asked[name] = partial(self._store, name, routes)
        for name, ask in asked.items():
            try:
                ask()
                self._said(name, "")
            except LbmuxError as error:
                self._said(name, f"PoP {pop.name}: {error}: its routes stay")

    def _store(self, node: str, routes: Routes) -> None:
        assert self._client is not None
        body = RouteRequest.model_validate(stored_order(routes) | {"node": node, "reason": "steer run"})
        self._client.post("/v1/routes", body, OverridesAnswer)
        self._stored[node] = routes

    def _nodes(self, texts: Sequence[str]) -> list[str]:
        """Return the connected nodes of the pool that the patterns name."""
        patterns = [text for text in texts if not _is_socket(text)]
        if not patterns:
            return []
        if self._client is None:
            self._said("nodes", f"{patterns[0]} is no control socket: name nodes only with --manager")
            return []
        try:
            nodes = self._client.get("/v1/nodes", NodesAnswer).nodes
        except LbmuxError as error:
            self._said("nodes", f"{error}: routes and round trips stay")
            return []
        self._said("nodes", "")
        return [one.node for one in nodes if one.connected and any(fnmatchcase(one.node, text) for text in patterns)]


def hold_request(routes: Routes) -> HoldRoutes:
    """Return the routes as a request to a mux."""
    return HoldRoutes(routes.withdrawn, routes.prepend, routes.length, routes.length6)


def stored_order(routes: Routes) -> dict[str, Any]:
    """Return the routes as fields of a request to the manager, which stores them."""
    if routes.withdrawn:
        return {"action": "withdraw"}
    announcement = {"prepended": routes.prepend, "length": routes.length, "length6": routes.length6}
    return {"action": "announce", "announcement": announcement}


def _sockets(texts: Sequence[str], relative_to: Path) -> list[ControlTarget]:
    return [relative_to / text for text in texts if _is_socket(text)]


def _is_socket(text: str) -> bool:
    return "/" in text or text.endswith(".sock")
