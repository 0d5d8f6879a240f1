"""The page's web server: one read-only process per pool, which sends events once a second to each open page.

/                 the page
/events           the pool (tools.web.pool_status), as server-sent events
/api/table        ?service=: a Maglev table                /api/proposal  a configuration, ?service=: what it moves
/api/explain      ?packet=&mux=: what a mux would do       /api/scoreboard  the last result file; events carry a stamp
                                                           that changes with the file
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from lbmux.api.channel import Place
from lbmux.api.control_paths import named_places
from lbmux.daemons.process import ready, stop_event
from lbmux.errors import LbmuxError, SetupError
from lbmux.tools.explain_mux import explain_live
from lbmux.tools.packet_text import ClientPacket
from lbmux.tools.results import read_result
from lbmux.tools.web.mux_status import MuxStatus, poll
from lbmux.tools.web.pool_status import document
from lbmux.tools.web.table_view import Weights, moves
from lbmux.tools.web.web_access import add_headers, guard

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
FILES = {"/": "index.html"} | {
    f"/{name}": name for name in ("style.css", "app.js", "scoreboard.js", "map.js", "map_layout.js")
}
INTERVAL_S = 1.0
MOST_PROPOSED_BYTES = 1 << 20
"""Bytes of a proposed configuration.  Parsing this much takes at most 150 MB."""


@dataclass
class Site:
    """The page's content: the muxes behind these sockets, and a file with the scoreboard's last result."""

    controls: Sequence[Place]
    scoreboard: Path | None = None
    interval_s: float = INTERVAL_S
    _statuses: list[MuxStatus] = field(default_factory=list)
    _document: str = ""
    _polled_at: float = float("-inf")
    _poll_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _proposing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def application(self, token: str | None) -> web.Application:
        application = web.Application(middlewares=[guard(token)], client_max_size=MOST_PROPOSED_BYTES)
        application.on_response_prepare.append(add_headers)
        application.add_routes([web.get(path, _file(name)) for path, name in FILES.items()])
        application.add_routes(
            [
                web.get("/events", self.events),
                web.get("/api/table", self.table),
                web.post("/api/proposal", self.proposal),
                web.get("/api/explain", self.explain),
                web.get("/api/scoreboard", self.last_result),
            ]
        )
        return application

    async def poll(self) -> str:
        """The pool's document, polled at most once per interval for all clients together."""
        async with self._poll_lock:
            now = asyncio.get_running_loop().time()
            if now - self._polled_at >= self.interval_s * 0.9:
                statuses = await asyncio.gather(
                    *(asyncio.to_thread(poll, *mux) for mux in named_places(self.controls).items())
                )
                scoreboard = await asyncio.to_thread(self._stamp)
                self._document = json.dumps(document(statuses, self._statuses) | {"scoreboard": scoreboard})
                self._statuses, self._polled_at = statuses, now
            return self._document

    def _stamp(self) -> str | None:
        """A stamp that changes with the scoreboard's file; None without a file."""
        try:
            seen = self.scoreboard.stat() if self.scoreboard else None
        except OSError:
            return None
        return seen and f"{seen.st_mtime_ns} {seen.st_size}"

    async def events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(f"data: {await self.poll()}\n\n".encode())
                await asyncio.sleep(self.interval_s)
        except ConnectionError:
            return response  # the client has gone

    async def table(self, request: web.Request) -> web.Response:
        await self.poll()
        known = self._weights()
        name = request.query.get("service", "")
        if name not in known:
            return _refused(f"no service {name!r}; services are {', '.join(known) or 'none'}")
        table = await asyncio.to_thread(known[name].table)
        return web.json_response(table.as_json())

    def _weights(self) -> dict[str, Weights]:
        """Weights by service, from the first mux that answers.  The page shows where muxes disagree."""
        found = next((one for one in self._statuses if not one.error), None)
        if found is None:
            return {}
        weights: dict[str, dict[str, int]] = {service.service: {} for service in found.services}
        for line in found.backends:
            weights.get(line.service, {})[line.backend] = line.weight
        return {one.service: Weights(weights[one.service], one.slots) for one in found.services}

    async def proposal(self, request: web.Request) -> web.Response:
        """Compare a proposal, one request at a time to bound memory."""
        if self._proposing.locked():
            return _refused("another proposal is being compared: try again in a moment", 429)
        async with self._proposing:
            try:
                text = await request.read()
                await self.poll()
                found = await asyncio.to_thread(moves, self._weights(), text, request.query.get("service"))
            except web.HTTPRequestEntityTooLarge:
                return _refused(f"the configuration is longer than {MOST_PROPOSED_BYTES} bytes", 413)
            except LbmuxError as error:
                return _refused(str(error))
            return web.json_response({"version": 1, "services": found})

    async def explain(self, request: web.Request) -> web.Response:
        path = named_places(self.controls).get(request.query.get("mux", ""), self.controls[0])
        try:
            packet = ClientPacket.parse(request.query.get("packet", ""))
            explanation = await asyncio.to_thread(explain_live, packet, path)
        except LbmuxError as error:
            return _refused(str(error))
        return web.json_response(explanation.as_json())

    async def last_result(self, request: web.Request) -> web.Response:
        if self.scoreboard is None:
            return web.json_response({"version": 1, "result": None})
        try:
            result = await asyncio.to_thread(read_result, self.scoreboard)
        except LbmuxError as error:
            return _refused(str(error))
        return web.json_response({"version": 1, "result": result})


def _file(name: str) -> Any:
    async def answer(request: web.Request) -> web.FileResponse:
        return web.FileResponse(PAGE / name)

    return answer


def _refused(reason: str, status: int = 400) -> web.Response:
    return web.json_response({"version": 1, "error": reason}, status=status)


async def serve(site: Site, host: str, port: int, token: str | None) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = stop_event()
    runner = web.AppRunner(site.application(token), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            where, hint = f"{host} port {port}", "give another with --host and --port"
            raise SetupError(where, error.strerror or str(error), hint) from None
        at = runner.addresses[0]
        shown = f"[{at[0]}]" if ":" in at[0] else at[0]
        log.info("http://%s:%d/%s", shown, at[1], f"?token={token}" if token else "")
        ready()
        await stop.wait()
    finally:
        await runner.cleanup()
