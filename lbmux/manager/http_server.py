"""The manager's HTTPS server: it authorises a request, validates it, calls the handler, and answers in JSON."""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from time import perf_counter
from typing import Any

from aiohttp import web

from lbmux.api.protocol import VERSION
from lbmux.api.requests import READING
from lbmux.errors import LbmuxError, SetupError
from lbmux.manager.api_handlers import Call
from lbmux.manager.api_models import ErrorAnswer
from lbmux.manager.connection_limits import ConnectionLimits
from lbmux.manager.endpoints import ENDPOINTS, LARGE_BYTES, SMALL_BYTES, Endpoint
from lbmux.manager.json_answers import error_answer, json_answer
from lbmux.manager.manager_metrics import ManagerMetrics
from lbmux.manager.manager_state import Manager
from lbmux.manager.nodes import NodeConnections
from lbmux.manager.open_streams import OpenStreams
from lbmux.manager.openapi import document
from lbmux.manager.peers import PeerConnections, PeerLink
from lbmux.manager.proposals import Caller, NotPrimaryError
from lbmux.manager.relay import RelayError
from lbmux.manager.renewal import keep_valid
from lbmux.manager.request_access import bearer, certificate_end, manager_of, node_of, origin_of, token_of
from lbmux.manager.request_bodies import control_request, read_body
from lbmux.manager.store.backup import back_up
from lbmux.manager.store.store import UnavailableError
from lbmux.manager.survey import NodeSurvey
from lbmux.manager.tokens import AccessError, AccessRole, Token, check_role

log = logging.getLogger(__name__)
HANDSHAKE_S, KEEP_ALIVE_S, STOP_S, CLIENT_CHECK_S = 5.0, 30.0, 1.0, 1.0
STREAMS = ("/v1/watch", "/v1/node", "/v1/peer", "/v1/nodes/{node}/ask", "/events")
"""Paths of answers without an end; the page has the last one."""

Extension = Callable[["HttpServer", web.Application], None]
"""Adds routes to a server's application."""


class HttpServer:
    """Serves a manager within ``listening``; ``extend`` adds routes beside the API's."""

    def __init__(self, manager: Manager, extend: "Extension | None" = None) -> None:
        self.manager = self._manager = manager
        self._metrics = ManagerMetrics()
        self._nodes, self._peers = NodeConnections(manager), PeerConnections(manager)
        self.relay = self._nodes.relay
        manager.survey = NodeSurvey(manager, self._nodes.relay)
        self._limits: ConnectionLimits | None = None
        self._streams = OpenStreams(STREAMS)
        self._application = web.Application(client_max_size=LARGE_BYTES, middlewares=[self._streams.middleware()])
        for endpoint in ENDPOINTS:
            self._application.router.add_route(endpoint.method, endpoint.path, self._handler(endpoint))
        self._application.add_routes([
            web.get("/v1/openapi.json", self._openapi),
            web.get("/v1/watch", self._watch),
            web.get("/v1/backup", self._backup),
            web.get("/v1/node", self._node),
            web.get("/v1/peer", self._peer),
            web.post("/v1/nodes/{node}/ask", self._ask),
            web.get("/metrics", self._scrape),
        ])  # fmt: skip
        if extend is not None:
            extend(self, self._application)

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """Listen and yield the port; raise SetupError if the address cannot be used."""
        runner = web.AppRunner(
            self._application, access_log=None, keepalive_timeout=KEEP_ALIVE_S, shutdown_timeout=STOP_S,
            handler_cancellation=True,
        )  # fmt: skip
        await runner.setup()
        try:
            assert runner.server is not None  # after setup
            self._limits = ConnectionLimits(runner.server, self._metrics)
            loop, tls = asyncio.get_running_loop(), self._manager.identity.server_context()
            try:
                server = await loop.create_server(
                    self._limits.connection, host, port, ssl=tls, ssl_handshake_timeout=HANDSHAKE_S
                )
            except OSError as error:
                hint = "give another address with --listen"
                raise SetupError(f"{host} port {port}", error.strerror or str(error), hint) from error
            works = (self._keep_valid(tls), PeerLink(self._manager).keep())
            tasks = [asyncio.create_task(work) for work in works]
            try:
                async with server:
                    yield server.sockets[0].getsockname()[1]
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._streams.stop()
            await runner.cleanup()

    async def _keep_valid(self, tls: ssl.SSLContext) -> None:
        """Renew this manager's own certificate; new connections get the new one."""
        identity, manager = self._manager.identity, self._manager
        await keep_valid(identity, lambda: [manager.primary.url], lambda: identity.load_into(tls))

    def _handler(self, endpoint: Endpoint) -> Any:
        async def handle(request: web.Request) -> web.Response:
            started = perf_counter()
            try:
                answer = json_answer(await endpoint.handle(await self._call(endpoint, request)))
            except web.HTTPException:
                raise
            except LbmuxError as error:
                answer = error_answer(error, request)
            except Exception:
                log.exception("%s %s failed", request.method, request.path)
                answer = json_answer(ErrorAnswer(error="internal error; the manager's log has the reason"), 500)
            self._metrics.requests.labels(endpoint.path, answer.status).inc()
            self._metrics.seconds.labels(endpoint.path).observe(perf_counter() - started)
            return answer

        return handle

    async def _call(self, endpoint: Endpoint, request: web.Request) -> Call:
        """Check a request, the cheapest check first: size, identity, role, primary, body."""
        manager, origin = self._manager, origin_of(request, self._manager.pool_id)
        if not manager.pool_id:
            raise UnavailableError("manager", "it is starting")
        if (request.content_length or 0) > endpoint.most_bytes:
            raise AccessError(f"the request has over {endpoint.most_bytes} bytes", 413)
        token = node = None
        name = ""
        if endpoint.access == "node":
            node = node_of(request, manager.pool_id)
            name = node.name
            self.admit(request)
        elif endpoint.access == "viewer":
            token = await self._asker(request)
            name = "" if token is None else token.name
        elif endpoint.access != "public":
            token = await self._admit(request, endpoint.access)
            name = token.name
        if (endpoint.writes or (endpoint.asks_primary and manager.primary.url)) and not manager.is_primary:
            raise NotPrimaryError(manager.primary.url)
        body = await read_body(endpoint.request, request, endpoint.most_bytes) if endpoint.request else None
        return Call(manager, Caller(name, origin), request.query, body, token, node)

    async def _admit(self, request: web.Request, role: AccessRole) -> Token:
        """Return the token of a request; raise AccessError."""
        return await self.admit_holder(request, role, bearer)

    async def admit_holder(
        self, request: web.Request, role: AccessRole, text_of: Callable[[web.Request], str]
    ) -> Token:  # fmt: skip
        """Return the token that ``text_of`` finds in a request, if it has the role; raise AccessError."""
        try:
            token = await token_of(text_of(request), self._manager.store, self._manager.clock)
            check_role(token, role)
        except AccessError as error:
            origin = origin_of(request, self._manager.pool_id)
            log.warning("%s %s from %s refused: %s", request.method, request.path, origin, error)
            raise
        self.admit(request)
        return token

    def admit(self, request: web.Request) -> None:
        """Exempt a request's connection from the limits of unauthorised ones."""
        if self._limits is not None:
            self._limits.admit(request.protocol)

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.json_response(document())

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        """Send the manager's status as a server-sent event, and again when it changes."""
        try:
            await self._admit(request, "viewer")
        except LbmuxError as error:
            return error_answer(error, request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        sent = ""
        while True:
            changed, status = self._manager.changed.next, self._manager.status().model_dump_json()
            if status != sent:
                await response.write(f"data: {status}\n\n".encode())
            sent = status
            await changed.wait()

    async def _backup(self, request: web.Request) -> web.Response:
        try:
            await self._admit(request, "admin")
            return web.Response(body=await back_up(self._manager.store), content_type="application/octet-stream")
        except LbmuxError as error:
            return error_answer(error, request)

    async def _node(self, request: web.Request) -> web.StreamResponse:
        """Serve a node, over a WebSocket."""
        try:
            node = node_of(request, self._manager.pool_id)
        except LbmuxError as error:
            log.warning("node from %s refused: %s", request.remote, error)
            return error_answer(error, request)
        self.admit(request)
        return await self._nodes.serve(request, node)

    async def _peer(self, request: web.Request) -> web.StreamResponse:
        """Serve another manager, over a WebSocket."""
        try:
            peer = manager_of(request, self._manager.pool_id)
            if not self._manager.is_primary:
                raise NotPrimaryError(self._manager.primary.url)
        except LbmuxError as error:
            return error_answer(error, request)
        self.admit(request)
        return await self._peers.serve(request, peer)

    async def _ask(self, request: web.Request) -> web.StreamResponse:
        """Relay a request of the control protocol to a node, and send the lines of its answers as they come."""
        try:
            token = await self._asker(request)
            line, command = await control_request(request, LARGE_BYTES if token is None else SMALL_BYTES)
            if command not in READING:
                if token is None:
                    raise AccessError("another manager may only read")
                check_role(token, "operator")
                log.warning("%s from %s: %s at %s", token.name, request.remote, command, request.match_info["node"])
            answers = self._nodes.relay(request.match_info["node"]).ask(line)
        except LbmuxError as error:
            return error_answer(error, request)
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl", "Cache-Control": "no-store"})
        await response.prepare(request)
        async with aclosing(answers):
            await _pass_on(answers, request, response)
        return response

    async def _asker(self, request: web.Request) -> Token | None:
        """Return the token of a request that reads; None: another manager asks; raise AccessError."""
        if "Authorization" in request.headers or certificate_end(request) is None:
            return await self._admit(request, "viewer")
        manager_of(request, self._manager.pool_id)
        self.admit(request)
        return None

    async def _scrape(self, request: web.Request) -> web.Response:
        try:
            await self._admit(request, "viewer")
        except LbmuxError as error:
            return error_answer(error, request)
        text = self._metrics.text(self._manager)
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def _pass_on(answers: AsyncGenerator[str], request: web.Request, response: web.StreamResponse) -> None:
    """Send a node's answers to a client until either disconnects."""
    try:
        waiting: asyncio.Task[str] | None = None
        while request.transport is not None:
            waiting = waiting or asyncio.create_task(anext(answers))
            done, _ = await asyncio.wait((waiting,), timeout=CLIENT_CHECK_S)
            if done:
                await response.write(waiting.result().encode())
                waiting = None
        if waiting is not None:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
    except StopAsyncIteration:
        return
    except RelayError as error:
        await response.write(json.dumps({"version": VERSION, "ok": False, "error": error.reason}).encode() + b"\n")
    except ConnectionError:
        return
