"""The page's web server: one process per pool, which sends events once a second to each open page.

/                 the page
/events           the pool's overview (tools.web.pool_overview), as server-sent events
/api/services     a line for each service                  /api/hosts     a line for each host
/api/service      ?name=: a service with its backends      /api/host      ?name=: a host's backends
/api/mux          ?name=: a mux and its own history        /api/problems  everything that needs attention
/api/search       ?text=: names and addresses with it      /api/map       all that the map of a small pool draws
/api/table        ?service=: a Maglev table                /api/proposal  a configuration, ?service=: what it moves
/api/override     with actions: a backend's override       /api/apply     with actions: a configuration; ?dry_run=1
/api/explain      ?packet=&mux=: what a mux would do       /api/scoreboard  the last result file; events carry a stamp
                                                           that changes with the file
"""

import asyncio
import json
import logging
import time
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
from lbmux.tools.web import page_actions
from lbmux.tools.web.pool_lists import backends_of_host, host_lines, search, service_lines
from lbmux.tools.web.pool_overview import mux_line, overview
from lbmux.tools.web.pool_poller import PoolPoller
from lbmux.tools.web.pool_problems import by_severity, mux_problems, service_problems
from lbmux.tools.web.table_view import Weights, moves
from lbmux.tools.web.web_access import add_headers, guard
from lbmux.tools.web.web_routers import sessions_of

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
FILES = {"/": "index.html"} | {f"/{path.name}": path.name for path in sorted(PAGE.glob("*.[cj]s*"))}
INTERVAL_S = 1.0
READ_ONLY = "this page is read-only: start `lbmux web` with --actions"
MOST_MAP_HOSTS, MOST_MAP_MUXES = 24, 8
"""A map of more is not legible."""
MOST_PROPOSED_BYTES = 1 << 20
"""Bytes of a proposed configuration.  Parsing this much takes at most 150 MB."""


@dataclass
class Site:
    """The page's content: the muxes behind these sockets, and a file with the scoreboard's last result.

    ``actions``: whether visitors may change the pool (tools.web.page_actions); without it the page is read-only.
    """

    controls: Sequence[Place]
    scoreboard: Path | None = None
    interval_s: float = INTERVAL_S
    actions: bool = False
    _proposing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.poller = PoolPoller(self.controls, self.interval_s)

    def application(self, token: str | None) -> web.Application:
        application = web.Application(middlewares=[guard(token)], client_max_size=MOST_PROPOSED_BYTES)
        application.on_response_prepare.append(add_headers)
        application.add_routes([web.get(path, _file(name)) for path, name in FILES.items()])
        application.add_routes(
            [
                web.get("/events", self.events),
                web.get("/api/services", self.services),
                web.get("/api/service", self.service),
                web.get("/api/hosts", self.hosts),
                web.get("/api/host", self.host),
                web.get("/api/mux", self.mux),
                web.get("/api/problems", self.problems),
                web.get("/api/search", self.search),
                web.get("/api/map", self.map),
                web.get("/api/table", self.table),
                web.post("/api/proposal", self.proposal),
                web.post("/api/override", self.override),
                web.post("/api/apply", self.apply),
                web.get("/api/explain", self.explain),
                web.get("/api/scoreboard", self.last_result),
            ]
        )
        return application

    def _stamp(self) -> str | None:
        """A stamp that changes with the scoreboard's file; None without a file."""
        try:
            seen = self.scoreboard.stat() if self.scoreboard else None
        except OSError:
            return None
        return seen and f"{seen.st_mtime_ns} {seen.st_size}"

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send the overview again and again; the first has the whole history, each later one what is new."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        since = 0
        try:
            while True:
                await self.poller.poll_summaries()
                shown = overview(self.poller.summaries, self.poller.history, self.poller.services, since)
                since = max((point["second"] for point in shown["points"]), default=since)
                shown["scoreboard"] = await asyncio.to_thread(self._stamp)
                shown["can"] = {"override": self.actions, "apply": self.actions and self._has_manager()}
                await response.write(f"data: {json.dumps(shown)}\n\n".encode())
                self.poller.refresh_details()
                await asyncio.sleep(self.poller.interval_s)
        except ConnectionError:
            return response  # the client has gone

    async def services(self, request: web.Request) -> web.Response:
        services = (await self.poller.poll_details())["services"]
        return self._dated({"services": service_lines(services)})

    async def service(self, request: web.Request) -> web.Response:
        name, services = request.query.get("name", ""), (await self.poller.poll_details())["services"]
        found = next((one for one in services if one["service"] == name), None)
        return self._dated({"service": found}) if found else _refused(f"no service {name!r}", 404)

    async def hosts(self, request: web.Request) -> web.Response:
        services = (await self.poller.poll_details())["services"]
        return self._dated({"hosts": host_lines(services)})

    async def host(self, request: web.Request) -> web.Response:
        name, services = request.query.get("name", ""), (await self.poller.poll_details())["services"]
        found = backends_of_host(services, name)
        return self._dated({"host": name, "backends": found}) if found else _refused(f"no host {name!r}", 404)

    async def mux(self, request: web.Request) -> web.Response:
        await self.poller.poll_summaries()
        name, history = request.query.get("name", ""), self.poller.history
        found = next((one for one in self.poller.summaries if one.name == name), None)
        if found is None:
            return _refused(f"no mux {name!r}", 404)
        line = mux_line(found, history) | {"sessions": sessions_of([found])}
        return web.json_response(
            {"version": 1, "mux": line, "points": history.points([name]), "events": history.events([name])}
        )

    async def problems(self, request: web.Request) -> web.Response:
        found = await self.poller.poll_details()
        problems = [*mux_problems(found["muxes"], found["sessions"]), *service_problems(found["services"])]
        return self._dated({"problems": by_severity(problems)})

    async def search(self, request: web.Request) -> web.Response:
        details = await self.poller.poll_details()
        muxes = [mux["name"] for mux in details["muxes"]]
        return self._dated({"found": search(request.query.get("text", ""), details["services"], muxes)})

    async def map(self, request: web.Request) -> web.Response:
        """Return the whole pool if it is small enough to be drawn, else only how large it is."""
        details = await self.poller.poll_details()
        hosts = len({edge["host"] for edge in details["edges"]})
        size = {"muxes": len(details["muxes"]), "hosts": hosts}
        is_small = hosts <= MOST_MAP_HOSTS and len(details["muxes"]) <= MOST_MAP_MUXES
        return self._dated({"size": size, "pool": details if is_small else None})

    def _dated(self, answer: dict[str, Any]) -> web.Response:
        """Return an answer with the age of its figures in seconds."""
        age_s = round(max(0.0, time.time() - self.poller.details_at), 1)
        return web.json_response({"version": 1, "age_s": age_s} | answer)

    async def table(self, request: web.Request) -> web.Response:
        await self.poller.poll_details()
        known = self._weights()
        name = request.query.get("service", "")
        if name not in known:
            return _refused(f"no service {name!r}; services are {', '.join(known) or 'none'}")
        table = await asyncio.to_thread(known[name].table)
        return web.json_response(table.as_json())

    def _weights(self) -> dict[str, Weights]:
        """Weights by service, from the first mux that answers.  The page shows where muxes disagree."""
        found = next((one for one in self.poller.statuses if not one.error), None)
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
                await self.poller.poll_details()
                found = await asyncio.to_thread(moves, self._weights(), text, request.query.get("service"))
            except web.HTTPRequestEntityTooLarge:
                return _refused(f"the configuration is longer than {MOST_PROPOSED_BYTES} bytes", 413)
            except LbmuxError as error:
                return _refused(str(error))
            return web.json_response({"version": 1, "services": found})

    async def override(self, request: web.Request) -> web.Response:
        """Put a backend's override in force, on all muxes."""
        if not self.actions:
            return _refused(READ_ONLY, 403)
        try:
            action = page_actions.parse(await request.read())
            said = await asyncio.to_thread(page_actions.override, action, self.controls)
        except LbmuxError as error:
            return _refused(str(error))
        log.info("from the page: %s", "; ".join(said))
        return web.json_response({"version": 1, "said": said})

    async def apply(self, request: web.Request) -> web.Response:
        """Apply a configuration to the pool, or with ``dry_run`` report what would change."""
        if not self.actions:
            return _refused(READ_ONLY, 403)
        try:
            text, dry_run = (await request.read()).decode(), "dry_run" in request.query
            answer = await asyncio.to_thread(page_actions.apply, text, self.controls, dry_run=dry_run)
        except web.HTTPRequestEntityTooLarge:
            return _refused(f"the configuration is longer than {MOST_PROPOSED_BYTES} bytes", 413)
        except UnicodeDecodeError as error:
            return _refused(f"the configuration is not UTF-8 text: byte {error.start}")
        except LbmuxError as error:
            return _refused(str(error))
        return web.json_response({"version": 1, **answer.model_dump(mode="json")})

    def _has_manager(self) -> bool:
        return page_actions.manager_of(self.controls) is not None

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
