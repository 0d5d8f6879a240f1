"""The link from each manager to the primary: reports of its nodes and agents up, the view of backends' health down.

The primary therefore knows all nodes of the pool, and every manager can send its muxes the one view.
"""

import asyncio
import logging
import time
from typing import Literal

import aiohttp
from aiohttp import WSMsgType, web
from pydantic import Field, ValidationError

from lbmux.errors import LbmuxError
from lbmux.manager.authority import Subject
from lbmux.manager.documents import NodeReport
from lbmux.manager.first_ended import until_one_ends
from lbmux.manager.health_relay import Lines
from lbmux.manager.manager_state import Manager
from lbmux.manager.node_messages import (
    ALIVE_S,
    MAX_MESSAGE_BYTES,
    SILENCE_S,
    HealthLine,
    LoadLine,
    Message,
    ProtocolError,
    View,
    check_pool,
    encode_message,
    parse_message,
    reason_of,
)
from lbmux.manager.pool_health import BATCH_S
from lbmux.manager.rollout_order import Progress

log = logging.getLogger(__name__)
RETRY_S = 0.2
TIMES_S = 5.0
"""Interval at which the primary learns when each node was last seen, in seconds."""


class Contribution(Message):
    """The news of a manager's own nodes and agents since its last message."""

    kind: Literal["contribution"] = "contribution"
    nodes: tuple[NodeReport, ...] | None = None
    """All nodes that are, or were, connected there; null: as before."""
    health: dict[str, tuple[HealthLine, ...]]
    """All states of agents that are new here, or that have fewer backends than before."""
    changed: dict[str, tuple[HealthLine, ...]] = Field(default_factory=dict)
    """States of the other agents that changed."""
    loads: tuple[LoadLine, ...] = ()
    """Loads of backends that agents there have reported since."""
    ended: tuple[str, ...]
    """Agents that are no longer connected there."""
    stopping: dict[str, float] = Field(default_factory=dict)
    """Agents that have stopped there, and in which time they are expected back, in seconds."""


class PeerLink:
    """The end of a manager that is not primary."""

    def __init__(self, manager: Manager) -> None:
        self._manager, self._last_error = manager, ""

    async def keep(self) -> None:
        """Stay connected to the current primary while this manager is not primary."""
        while True:
            changed, primary = self._manager.changed.next, self._manager.primary
            if not primary.url or self._manager.is_primary or primary.url == self._manager.url:
                await changed.wait()
                continue
            reason = ""
            try:
                await self._talk(primary.url, primary.epoch)
            except TimeoutError:
                reason = "it is silent"
            except (aiohttp.ClientError, OSError, LbmuxError) as error:
                reason = reason_of(error)
            if reason and reason != self._last_error:
                log.warning("primary %s: %s", primary.url, reason)
            self._last_error = reason
            await asyncio.sleep(RETRY_S)

    async def _talk(self, url: str, epoch: int | None) -> None:
        tls = self._manager.identity.client_context()
        async with aiohttp.ClientSession() as session:
            async with asyncio.timeout(SILENCE_S):
                socket = await session.ws_connect(f"{url}/v1/peer", ssl=tls, max_msg_size=MAX_MESSAGE_BYTES)
            try:
                await until_one_ends(self._contribute(socket), self._receive(socket), self._until_replaced(epoch))
            finally:
                self._manager.primary_progress = None
                await socket.close()

    async def _until_replaced(self, epoch: int | None) -> None:
        while self._manager.primary.epoch == epoch and not self._manager.is_primary:
            await self._manager.changed.next.wait()

    async def _contribute(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        manager, sent, stopping = self._manager, dict[str, Lines](), dict[str, float]()
        nodes: tuple[NodeReport, ...] = ()
        due = 0.0
        while True:
            reported, health = manager.reported.next, manager.health.reported.next
            now = {agent: dict(lines) for agent, lines in manager.health.local.items()}
            known = tuple({**manager.gone, **manager.reports}.values())
            looked_at = time.monotonic()
            is_due = looked_at >= due or _without_times(known) != _without_times(nodes)
            whole = {agent for agent, lines in now.items() if agent not in sent or sent[agent].keys() - lines.keys()}
            message = Contribution(
                nodes=known if is_due else None,
                health={agent: tuple(now[agent].values()) for agent in whole},
                changed={
                    agent: tuple(line for key, line in lines.items() if sent[agent].get(key) != line)
                    for agent, lines in now.items()
                    if agent not in whole and sent[agent] != lines
                },
                loads=manager.health.take_loads(),
                ended=tuple(sent.keys() - now.keys()),
                stopping=dict(manager.health.stopping.items() - stopping.items()),
            )
            await socket.send_str(encode_message(message, manager.pool_id))
            sent, stopping = now, dict(manager.health.stopping)
            if is_due:
                nodes, due = known, looked_at + TIMES_S
            await _either(reported, health, ALIVE_S)
            await asyncio.sleep(max(0.0, looked_at + BATCH_S - time.monotonic()))

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            async with asyncio.timeout(SILENCE_S):
                received = await socket.receive()
            if received.type is not WSMsgType.TEXT:
                return
            message = parse_message(received.data, self._manager.pool_id)
            if isinstance(message, View):
                health, progress = self._manager.health, Progress(message.agents, message.muxes)
                if message.lines or (message.epoch, message.number) != (health.view.epoch, health.view.number):
                    health.follow(message.epoch, message.number, message.lines, message.kept, message.weights)
                if progress != self._manager.primary_progress:
                    self._manager.primary_progress = progress
                    self._manager.reported.send()


class PeerConnections:
    """The primary's end."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    async def serve(self, request: web.Request, peer: Subject) -> web.WebSocketResponse:
        """Serve one manager until its connection ends, or this manager is no longer primary."""
        socket = web.WebSocketResponse(max_msg_size=MAX_MESSAGE_BYTES)
        await socket.prepare(request)
        agents = set[str]()
        try:
            await until_one_ends(self._send(socket), self._receive(socket, peer.name, agents))
        except LbmuxError as error:
            log.warning("manager %s: %s", peer.name, error)
        except (OSError, TimeoutError):
            log.info("manager %s: disconnected", peer.name)
        finally:
            self._manager.elsewhere.pop(peer.name, None)
            for agent in agents:
                self._manager.health.collect_end(agent, peer.name)
        await socket.close()
        return socket

    async def _send(self, socket: web.WebSocketResponse) -> None:
        health, sent, last = self._manager.health, (-1, 0), Progress()
        while self._manager.is_primary:
            viewed, reported, view = health.viewed.next, self._manager.reported.next, health.view
            looked_at = time.monotonic()
            now, progress = (view.epoch, view.number), self._manager.progress
            if view.epoch == self._manager.primary.epoch and (now != sent or progress != last):
                lines = view.since(*sent) if now != sent else ()
                weights = view.weights_since(*sent) if now != sent else None
                sent, last = now, progress
                message = View(
                    epoch=now[0], number=now[1], lines=lines, kept=view.kept, weights=weights,
                    agents=progress.agents, muxes=progress.muxes,
                )  # fmt: skip
                await socket.send_str(encode_message(message, self._manager.pool_id))
            await _either(viewed, reported, ALIVE_S)
            await asyncio.sleep(max(0.0, looked_at + BATCH_S - time.monotonic()))

    async def _receive(self, socket: web.WebSocketResponse, peer: str, agents: set[str]) -> None:
        while True:
            async with asyncio.timeout(SILENCE_S):
                received = await socket.receive()
            if received.type is not WSMsgType.TEXT:
                return
            try:
                message = Contribution.model_validate_json(received.data)
            except ValidationError as error:
                raise ProtocolError("it sent a message that this version does not understand") from error
            check_pool(message, self._manager.pool_id)
            if message.nodes is not None:
                self._manager.elsewhere[peer] = {one.node: one for one in message.nodes}
                self._manager.reported.send()
            for agent, lines in message.health.items():
                self._manager.health.collect(agent, lines, True, peer)
            for agent, lines in message.changed.items():
                self._manager.health.collect(agent, lines, False, peer)
            for agent, back_in_s in message.stopping.items():
                self._manager.health.collect_stop(agent, back_in_s)
            for agent in message.ended:
                self._manager.health.collect_end(agent, peer)
            self._manager.health.collect_loads(message.loads)
            agents |= message.health.keys()
            agents -= set(message.ended)


def _without_times(nodes: tuple[NodeReport, ...]) -> list[NodeReport]:
    """Return reports without the time of the last message, which changes each second."""
    return [one.model_copy(update={"seen": 0.0}) for one in nodes]


async def _either(first: asyncio.Event, second: asyncio.Event, timeout_s: float) -> None:
    """Wait for one of two events, ``timeout_s`` at most."""
    tasks = [asyncio.create_task(one.wait()) for one in (first, second)]
    await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
