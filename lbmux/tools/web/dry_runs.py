"""What the page computes by itself: Maglev tables, what a configuration would move in them, and what a mux would do.

/api/table        ?service=: a Maglev table                /api/proposal  a configuration, ?service=: what it moves
/api/explain      ?packet=&mux=: what a mux would do

It needs compiled code, so only `lbmux web` has these routes, not the manager.
"""

import asyncio

from aiohttp import web

from lbmux.api.control_paths import named_targets
from lbmux.errors import LbmuxError
from lbmux.tools.explain_mux import explain_live
from lbmux.tools.packet_text import ClientPacket
from lbmux.tools.web.pool_poller import PoolPoller
from lbmux.tools.web.pool_site import refused, too_large
from lbmux.tools.web.table_view import Weights, moves


class DryRuns:
    """Answers from what a poller knows of its muxes."""

    def __init__(self, poller: PoolPoller) -> None:
        self.poller = poller
        self._proposing = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/table", self.table),
            web.post("/api/proposal", self.proposal),
            web.get("/api/explain", self.explain),
        ]

    async def table(self, request: web.Request) -> web.Response:
        await self.poller.poll_details()
        known = self._weights()
        name = request.query.get("service", "")
        if name not in known:
            return refused(f"no service {name!r}; services are {', '.join(known) or 'none'}")
        table = await asyncio.to_thread(known[name].table)
        return web.json_response(table.as_json())

    def _weights(self) -> dict[str, Weights]:
        """Weights by service, from the first mux that answers.  The page shows where muxes disagree."""
        status = next((one for one in self.poller.statuses if not one.error), None)
        if status is None:
            return {}
        weights: dict[str, dict[str, int]] = {service.service: {} for service in status.services}
        for line in status.backends:
            weights.get(line.service, {})[line.backend] = line.weight
        return {one.service: Weights(weights[one.service], one.slots) for one in status.services}

    async def proposal(self, request: web.Request) -> web.Response:
        """Compare a proposal, one request at a time to bound memory."""
        if self._proposing.locked():
            return refused("another proposal is being compared: try again in a moment", 429)
        async with self._proposing:
            try:
                text = await request.read()
                await self.poller.poll_details()
                services = await asyncio.to_thread(moves, self._weights(), text, request.query.get("service"))
            except web.HTTPRequestEntityTooLarge:
                return too_large()
            except LbmuxError as error:
                return refused(str(error))
            return web.json_response({"version": 1, "services": services})

    async def explain(self, request: web.Request) -> web.Response:
        places = await self.poller.in_thread(self.poller.places)
        path = named_targets(places).get(request.query.get("mux", ""), places[0])
        try:
            packet = ClientPacket.parse(request.query.get("packet", ""))
            explanation = await asyncio.to_thread(explain_live, packet, path)
        except LbmuxError as error:
            return refused(str(error))
        return web.json_response(explanation.as_json())
