"""The manager's side of its connections to nodes: it sends the state after each change, and receives reports."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import WSMsgType, web

from lbmux.manager.authority import Subject
from lbmux.manager.documents import NodeReport
from lbmux.manager.first_ended import until_one_ends
from lbmux.manager.manager_state import Manager
from lbmux.manager.node_messages import (
    ALIVE_S,
    MAX_MESSAGE_BYTES,
    SILENCE_S,
    Alive,
    Answer,
    AnyMessage,
    Health,
    Hello,
    Message,
    ProtocolError,
    Refused,
    Report,
    Stale,
    common_protocol,
    encode_message,
    parse_message,
)
from lbmux.manager.relay import Relay, RelayError
from lbmux.manager.request_access import certificate_end
from lbmux.manager.sent_states import SentStates
from lbmux.manager.sent_views import SentViews

log = logging.getLogger(__name__)
NODE_SILENCE_S = 3 * SILENCE_S
"""Silence after which a node counts as dead, in seconds: it may be busy with a large state."""


@dataclass
class Session:
    """One node's connection; ``file``: the digest of the file that it has, as far as is known."""

    socket: web.WebSocketResponse
    node: Subject
    hello: Hello
    protocol: int
    file: str
    relay: Relay | None
    """None: the node speaks protocol 1."""
    certificate_until: float | None
    refusals: int = 0


class NodeConnections:
    """All nodes that are connected to this manager."""

    def __init__(self, manager: Manager) -> None:
        self._manager, self._states, self._views = manager, SentStates(manager), SentViews()
        self._sessions: dict[str, Session] = {}

    async def serve(self, request: web.Request, node: Subject) -> web.WebSocketResponse:
        """Serve one node until its connection ends."""
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES)
        await socket.prepare(request)
        try:
            async with asyncio.timeout(SILENCE_S):
                hello = parse_message(await socket.receive_str(), node.pool)
            if not isinstance(hello, Hello):
                raise ProtocolError(f"{hello.kind} came before hello")
            protocol = common_protocol(hello.protocols)
            relay = Relay(node.name, sender(socket, node.pool)) if protocol > 1 else None
            await self._exchange(Session(socket, node, hello, protocol, hello.digest, relay, certificate_end(request)))
        except ProtocolError as error:
            log.warning("node %s: %s", node.name, error)
            with suppress(ConnectionError):
                await sender(socket, node.pool)(Refused(reason=str(error)))
        except (TimeoutError, TypeError, ConnectionError):  # TypeError: closed, or the message is not text
            log.info("node %s: the connection ended or fell silent", node.name)
        await socket.close()
        return socket

    def relay(self, name: str) -> Relay:
        """Return the relay to a node that is connected here; raise RelayError."""
        session = self._sessions.get(name)
        if session is None:
            raise RelayError(
                name, "no such node is connected; `lbmux show nodes` lists them", self._manager.way_to(name)
            )
        if session.relay is None:
            raise RelayError(name, f"lbmux {session.hello.version} there does not accept requests from a manager")
        return session.relay

    async def _exchange(self, session: Session) -> None:
        """Send and receive until either ends; the node is known while its connection lasts."""
        name, hello, reports = session.node.name, session.hello, self._manager.reports
        reports[name] = self._report(session, Report(revision=hello.revision, overrides=hello.overrides))
        self._manager.gone.pop(name, None)
        self._sessions[name] = session
        self._manager.reported.send()
        works = [self._send(session), self._receive(session)]
        if session.relay is not None and hello.forwards:
            works.append(self._send_views(session))
        try:
            await until_one_ends(*works)
        finally:
            if session.relay is not None:
                session.relay.close()
            if self._sessions.get(name) is session:  # otherwise the node has reconnected
                del self._sessions[name]
                self._manager.gone[name] = reports.pop(name).model_copy(update={"connected": False})
                self._manager.health.ended(name)
                self._manager.reported.send()

    async def _send(self, session: Session) -> None:
        """Send the state whenever it changes, and a keepalive each second."""
        manager, hello, last = self._manager, session.hello, None
        alive = encode_message(Alive(), session.node.pool)
        while True:
            changed, sent = manager.changed.next, self._states.of(hello.role, session.node.name, hello.hosts)
            if sent is not None and sent.key != last:
                await session.socket.send_str(sent.message(session.file, session.protocol))
                last, session.file = sent.key, sent.digest
            else:
                await session.socket.send_str(alive)
            with suppress(TimeoutError):
                async with asyncio.timeout(ALIVE_S):
                    await changed.wait()

    async def _send_views(self, session: Session) -> None:
        """Send what changed in the view of backends' health; the first message has all of it."""
        health, sent = self._manager.health, (-1, 0)
        while True:
            changed, view = health.viewed.next, health.view
            if view.number and (view.epoch, view.number) != sent:
                message = self._views.message(view, sent, session.node.pool)
                sent = view.epoch, view.number
                await session.socket.send_str(message)
            await changed.wait()

    async def _receive(self, session: Session) -> None:
        name = session.node.name
        while True:
            async with asyncio.timeout(NODE_SILENCE_S):
                received = await session.socket.receive()
            if received.type is not WSMsgType.TEXT:
                return
            message: AnyMessage = parse_message(received.data, session.node.pool)
            reports = self._manager.reports
            reports[name] = reports[name].model_copy(update={"seen": self._manager.clock()})
            if isinstance(message, Report):
                self._take(session, message)
            elif isinstance(message, Stale):
                log.error("node %s refuses the epoch of this manager: it has seen %d", name, message.epoch)
                self._manager.step_down(message.epoch)
            elif isinstance(message, Health) and session.hello.serves_host:
                if message.back_in_s > 0:
                    self._manager.health.expect(name, message.back_in_s)
                else:
                    self._manager.health.report(name, session.hello.hosts, message.lines, message.whole)
                    self._manager.health.report_loads(session.hello.hosts, message.loads)
            elif isinstance(message, Answer) and session.relay is not None:
                session.relay.take(message)
            elif not isinstance(message, Alive):
                raise ProtocolError(f"a node does not send {message.kind}")

    def _take(self, session: Session, message: Report) -> None:
        name, reports = session.node.name, self._manager.reports
        if message.refused:
            session.file = ""  # the node did not keep the file
            session.refusals += 1
            if (known := reports.get(name)) is None or known.refused != message.refused:
                log.warning("node %s refuses revision %d: %s", name, message.revision, message.refused)
        reports[name] = self._report(session, message)
        self._manager.reported.send()

    def _report(self, session: Session, message: Report) -> NodeReport:
        now, in_force = self._manager.clock(), message.in_force
        if in_force is None:
            in_force = 0 if message.refused else message.revision
        return NodeReport(
            node=session.node.name, role=session.hello.role, revision=message.revision, overrides=message.overrides,
            in_force=in_force, refused=message.refused, refusals=session.refusals, time=now, seen=now,
            manager=self._manager.url, version=session.hello.version, certificate_until=session.certificate_until,
        )  # fmt: skip


def sender(socket: web.WebSocketResponse, pool: str) -> Callable[[Message], Awaitable[None]]:
    """Return a function that sends messages to a node of a pool."""

    async def send(message: Message) -> None:
        await socket.send_str(encode_message(message, pool))

    return send
