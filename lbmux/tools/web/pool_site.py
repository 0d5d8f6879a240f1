"""The page without its server: its files, the views of the pool, and the changes that a visitor may make.

/                 the page
/events           the pool's overview (tools.web.pool_overview), as server-sent events
/api/services     a line for each service                  /api/hosts     a line for each host
/api/service      ?name=: a service with its backends      /api/host      ?name=: a host's backends
/api/mux          ?name=: a mux and its own history        /api/problems  everything that needs attention
/api/search       ?text=: names and addresses with it      /api/map       all that the map of a small pool draws
/api/override     a backend's override                     /api/apply     a configuration; ?dry_run=1
/api/scoreboard   the last result file; events carry a stamp that changes with the file

It imports no compiled code: the manager's unit forbids memory that is written and executed.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from lbmux.api.channel import ControlTarget
from lbmux.errors import LbmuxError
from lbmux.tools.results import read_result
from lbmux.tools.web import page_actions
from lbmux.tools.web.page_actions import Visitor
from lbmux.tools.web.pool_lists import backends_of_host, host_lines, search, service_lines
from lbmux.tools.web.pool_overview import mux_line, overview
from lbmux.tools.web.pool_poller import PoolPoller
from lbmux.tools.web.pool_problems import by_severity, mux_problems, service_problems
from lbmux.tools.web.web_routers import sessions_of

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
FILES = {"/": "index.html"} | {f"/{path.name}": path.name for path in sorted(PAGE.glob("*.[cj]s*"))}
INTERVAL_S = 1.0
MOST_MAP_HOSTS, MOST_MAP_MUXES = 24, 8
"""A map of more is not legible."""
MOST_PROPOSED_BYTES = 1 << 20
"""Bytes of a proposed configuration.  Parsing this much takes at most 150 MB."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class PoolSite:
    """The page of the muxes at ``places``.

    ``visitor`` says what the sender of a request may change; ``explains``: the server has the routes of dry_runs.
    ``scoreboard``: a file with the scoreboard's last result.
    """

    places: Callable[[], Sequence[ControlTarget]]
    visitor: Callable[[web.Request], Visitor]
    scoreboard: Path | None = None
    interval_s: float = INTERVAL_S
    explains: bool = False
    may_stay: Callable[[web.Request], Awaitable[bool]] | None = None
    """Whether the page of a visitor may stay open; None: yes."""
    pool_events: Callable[[float], Awaitable[list[dict[str, Any]]]] | None = None
    """Returns the events of the pool after a time, as the history returns those of muxes; None: there are none."""

    def __post_init__(self) -> None:
        self.poller = PoolPoller(self.places, self.interval_s)

    def routes(self) -> list[web.RouteDef]:
        return [
            *(web.get(path, _file(name)) for path, name in FILES.items()),
            web.get("/events", self.events),
            web.get("/api/services", self.services),
            web.get("/api/service", self.service),
            web.get("/api/hosts", self.hosts),
            web.get("/api/host", self.host),
            web.get("/api/mux", self.mux),
            web.get("/api/problems", self.problems),
            web.get("/api/search", self.search),
            web.get("/api/map", self.map),
            web.get("/api/scoreboard", self.last_result),
            web.post("/api/override", self.override),
            web.post("/api/apply", self.apply),
        ]

    def _stamp(self) -> str | None:
        """Return a stamp that changes with the scoreboard's file; None without a file."""
        try:
            seen = self.scoreboard.stat() if self.scoreboard else None
        except OSError:
            return None
        return seen and f"{seen.st_mtime_ns} {seen.st_size}"

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send the overview again and again; the first has the whole history, each later one what is new."""
        visitor = self.visitor(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        since = 0
        try:
            while True:
                await self.poller.poll_summaries()
                message = overview(self.poller.summaries, self.poller.history, self.poller.services, since)
                if self.pool_events is not None:
                    message["events"] = sorted([*message["events"], *await self.pool_events(since)], key=_time)
                since = max((point["second"] for point in message["points"]), default=since)
                message["scoreboard"] = await asyncio.to_thread(self._stamp)
                message["can"] = visitor.can | {"explain": self.explains}
                message["visitor"] = visitor.name
                await response.write(f"data: {json.dumps(message)}\n\n".encode())
                self.poller.refresh_details()
                await asyncio.sleep(self.poller.interval_s)
                if self.may_stay is not None and not await self.may_stay(request):
                    return response
        except ConnectionError:
            return response  # the client has gone

    async def services(self, request: web.Request) -> web.Response:
        services = (await self.poller.poll_details())["services"]
        return self._dated({"services": service_lines(services)})

    async def service(self, request: web.Request) -> web.Response:
        name, services = request.query.get("name", ""), (await self.poller.poll_details())["services"]
        line = next((one for one in services if one["service"] == name), None)
        return self._dated({"service": line}) if line else refused(f"no service {name!r}", 404)

    async def hosts(self, request: web.Request) -> web.Response:
        services = (await self.poller.poll_details())["services"]
        return self._dated({"hosts": host_lines(services)})

    async def host(self, request: web.Request) -> web.Response:
        name, services = request.query.get("name", ""), (await self.poller.poll_details())["services"]
        backends = backends_of_host(services, name)
        return self._dated({"host": name, "backends": backends}) if backends else refused(f"no host {name!r}", 404)

    async def mux(self, request: web.Request) -> web.Response:
        await self.poller.poll_summaries()
        name, history = request.query.get("name", ""), self.poller.history
        summary = next((one for one in self.poller.summaries if one.name == name), None)
        if summary is None:
            return refused(f"no mux {name!r}", 404)
        line = mux_line(summary, history) | {"sessions": sessions_of([summary])}
        return web.json_response(
            {"version": 1, "mux": line, "points": history.points([name]), "events": history.events([name])}
        )

    async def problems(self, request: web.Request) -> web.Response:
        details = await self.poller.poll_details()
        problems = [*mux_problems(details["muxes"], details["sessions"]), *service_problems(details["services"])]
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

    async def override(self, request: web.Request) -> web.Response:
        """Put a backend's override in force, on all muxes."""
        visitor = self.visitor(request)
        if not visitor.can["override"]:
            return refused(visitor.may_not, 403)
        try:
            action = page_actions.parse(await request.read())
            # Looking up the places may ask another manager, which would hold up this one's event loop.
            lines = await self.poller.in_thread(lambda: page_actions.override(action, visitor.manager, self.places()))
        except LbmuxError as error:
            return refused(str(error), _status(error))
        log.info("from the page%s: %s", f" ({visitor.name})" * bool(visitor.name), "; ".join(lines))
        return web.json_response({"version": 1, "said": lines})

    async def apply(self, request: web.Request) -> web.Response:
        """Apply a configuration to the pool, or with ``dry_run`` report what would change."""
        visitor = self.visitor(request)
        if not visitor.can["override"]:
            return refused(visitor.may_not, 403)
        try:
            text, dry_run = (await request.read()).decode(), "dry_run" in request.query
            if len(text) > MOST_PROPOSED_BYTES:
                return too_large()
            answer = await self.poller.in_thread(partial(page_actions.apply, text, visitor.manager, dry_run=dry_run))
        except web.HTTPRequestEntityTooLarge:
            return too_large()
        except UnicodeDecodeError as error:
            return refused(f"the configuration is not UTF-8 text: byte {error.start}")
        except LbmuxError as error:
            return refused(str(error), _status(error))
        return web.json_response({"version": 1, **answer.model_dump(mode="json")})

    async def last_result(self, request: web.Request) -> web.Response:
        if self.scoreboard is None:
            return web.json_response({"version": 1, "result": None})
        try:
            result = await asyncio.to_thread(read_result, self.scoreboard)
        except LbmuxError as error:
            return refused(str(error))
        return web.json_response({"version": 1, "result": result})


def _time(event: dict[str, Any]) -> float:
    return float(event["time"])


def _file(name: str) -> Handler:
    async def answer(request: web.Request) -> web.FileResponse:
        return web.FileResponse(PAGE / name)

    return answer


def _status(error: LbmuxError) -> int:
    """Return the manager's status for an error, where it is one that tells the client apart from its request."""
    status = getattr(error, "status", 400)
    return status if status in (401, 403, 409, 503) else 400


def too_large() -> web.Response:
    return refused(f"the configuration is longer than {MOST_PROPOSED_BYTES} bytes", 413)


def refused(reason: str, status: int = 400) -> web.Response:
    return web.json_response({"version": 1, "error": reason}, status=status)
