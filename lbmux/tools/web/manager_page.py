"""The page at a manager: visitors log in with a token of the pool, whose role says what they may change.

/login            GET: the form; POST: the token, which then is in a cookie of this browser session
/logout           POST: ends the session

A change goes to the primary with the visitor's token and address, as one from the command line does, so the primary
checks the role again and writes both to its log.  Muxes are asked over their own connections to the managers.
"""

import asyncio
import html
import logging
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import parse_qs

from aiohttp import web

from lbmux.api.channel import ControlTarget
from lbmux.errors import LbmuxError
from lbmux.manager.api_client import ApiClient
from lbmux.manager.api_models import NodesAnswer
from lbmux.manager.connected_node import ConnectedNode
from lbmux.manager.documents import NodeReport
from lbmux.manager.http_server import HttpServer
from lbmux.manager.relayed_node import RelayedNode
from lbmux.manager.tokens import RANKS, AccessError, AccessRole, Token
from lbmux.tools.web.page_actions import Visitor
from lbmux.tools.web.pool_events import PoolEvents
from lbmux.tools.web.pool_site import FILES, PAGE, Handler, PoolSite, refused
from lbmux.tools.web.web_access import HEADERS, is_cross_origin

log = logging.getLogger(__name__)

COOKIE = "__Host-lbmux-token"
"""A browser takes this prefix from HTTPS only, for this host only (RFC 6265bis, section 4.1.3.2)."""
MOST_LOGIN_BYTES = 1024
PRIMARY_S = 2.0
"""Longest wait for the primary's list of nodes, in seconds."""
TOKEN = web.RequestKey("token", Token)
"""The token of a visitor's cookie, as it is stored."""


def add_page(server: HttpServer, application: web.Application) -> None:
    """Add the page's routes to a manager's server."""
    page = ManagerPage(server)
    application.on_response_prepare.append(_add_headers)
    for route in page.site.routes():
        is_open = route.path in FILES and route.path != "/"  # the form needs the style
        handler = route.handler if is_open else page.guarded(route)
        application.add_routes([web.route(route.method, route.path, handler)])
    application.add_routes(
        [web.get("/login", _form), web.post("/login", page.log_in), web.post("/logout", page.log_out)]
    )


class ManagerPage:
    """The page of all muxes that the pool knows."""

    def __init__(self, server: HttpServer) -> None:
        self._server, self._manager = server, server.manager
        self._loop: asyncio.AbstractEventLoop | None = None
        events = PoolEvents(server.manager.store)
        self.site = PoolSite(self._places, self._visitor, may_stay=self._may_stay, pool_events=events.since)

    def guarded(self, route: web.RouteDef) -> Handler:
        """Return the route's handler, for visitors with the role that it needs only."""
        is_link, role = route.path == "/", _needed(route)

        async def handle(request: web.Request) -> web.StreamResponse:
            if not is_link and is_cross_origin(request.headers):
                return refused("requests from pages of another origin are refused", 403)
            if COOKIE not in request.cookies:
                if is_link:
                    raise web.HTTPSeeOther("/login")
                return refused("log in first", 401)
            try:
                request[TOKEN] = await self._server.admit_holder(request, role, _cookie)
            except AccessError as error:
                if is_link:
                    raise web.HTTPSeeOther("/login") from error
                return refused(error.reason, error.status)
            except LbmuxError as error:
                return refused(str(error), 503)
            self._loop = asyncio.get_running_loop()
            return await route.handler(request)

        return handle

    async def log_in(self, request: web.Request) -> web.StreamResponse:
        """Put a valid token into the browser's cookie."""
        if is_cross_origin(request.headers):
            return refused("requests from pages of another origin are refused", 403)
        if (request.content_length or MOST_LOGIN_BYTES + 1) > MOST_LOGIN_BYTES:
            return refused("a token is needed, in a form", 413)
        text = parse_qs((await request.read()).decode(errors="replace")).get("token", [""])[0].strip()
        try:
            await self._server.admit_holder(request, "viewer", lambda _: text)
        except LbmuxError as error:
            return _login(str(error), getattr(error, "status", 503))
        response = web.HTTPSeeOther("/")
        response.set_cookie(COOKIE, text, httponly=True, secure=True, samesite="Strict")
        raise response

    async def log_out(self, request: web.Request) -> web.StreamResponse:
        """Remove the cookie; the token stays valid."""
        if is_cross_origin(request.headers):
            return refused("requests from pages of another origin are refused", 403)
        response = web.HTTPSeeOther("/login")
        response.del_cookie(COOKIE, secure=True)
        raise response

    async def _may_stay(self, request: web.Request) -> bool:
        """Return whether a visitor's token is still valid; yes while the store does not answer."""
        try:
            await self._server.admit_holder(request, "viewer", _cookie)
        except AccessError:
            return False
        except LbmuxError:
            log.debug("the token of an open page cannot be checked: the store does not answer")
        return True

    def _visitor(self, request: web.Request) -> Visitor:
        token, manager = request[TOKEN], self._manager
        may = RANKS[token.role] >= RANKS["operator"]
        client = ApiClient(
            [manager.primary.url or manager.url], _cookie(request), manager.identity.client_context(),
            origin=request.remote or "",
        )  # fmt: skip
        return Visitor(
            can_override=may, can_apply=may and not token.services, manager=client,
            may_not=f"token {token.name} is a {token.role}'s: it may change nothing",
            name=f"{token.name} ({token.role})",
        )  # fmt: skip

    def _places(self) -> Sequence[ControlTarget]:
        """Return the pool's muxes, also those that have gone; called in a thread of the poller."""
        loop = self._loop
        assert loop is not None  # a request came before
        return [self._place(one, loop) for one in self._reports() if one.role == "mux"]

    def _place(self, report: NodeReport, loop: asyncio.AbstractEventLoop) -> ControlTarget:
        if report.manager == self._manager.url or not report.connected:
            return ConnectedNode(report.node, self._server.relay, loop)
        return RelayedNode(ApiClient([report.manager], "", self._manager.identity.client_context()), report.node)

    def _reports(self) -> Sequence[NodeReport]:
        """Return what the primary knows of the nodes; without one, what this manager knows."""
        manager, reports = self._manager, dict(self._manager.nodes)
        if not manager.is_primary and manager.primary.url:
            client = ApiClient([manager.primary.url], "", manager.identity.client_context(), PRIMARY_S)
            with suppress(LbmuxError):
                reports = {one.node: one for one in client.get("/v1/nodes", NodesAnswer).nodes}
        return [reports[name] for name in sorted(reports)]


def _needed(route: web.RouteDef) -> AccessRole:
    return "viewer" if route.method == "GET" else "operator"


def _cookie(request: web.Request) -> str:
    return request.cookies[COOKIE]


async def _form(request: web.Request) -> web.Response:
    return _login()


def _login(reason: str = "", status: int = 200) -> web.Response:
    page = (PAGE / "login.html").read_text()
    return web.Response(text=page.replace("@reason@", html.escape(reason)), status=status, content_type="text/html")


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    if not request.path.startswith("/v1/"):
        response.headers.update(HEADERS)
