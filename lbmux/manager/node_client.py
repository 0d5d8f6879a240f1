"""A node's connection to its managers: it dials out, hands over states, and reports whether they are in force.

The states are handed over one at a time, and only the last one of several that arrived meanwhile. If the connection
ends or falls silent, the node connects to the next manager.
"""

import asyncio
import logging
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal

import aiohttp

from lbmux import __version__
from lbmux.errors import LbmuxError
from lbmux.manager.api_models import LocalOverridesRequest
from lbmux.manager.hand_over import hand_over
from lbmux.manager.held_state import NodeState, judge, read_state, taken_over, write_state
from lbmux.manager.identity import Identity
from lbmux.manager.node_messages import (
    MAX_MESSAGE_BYTES,
    SILENCE_S,
    Alive,
    Ask,
    Forget,
    Health,
    HealthLine,
    Hello,
    LoadLine,
    Message,
    More,
    ProtocolError,
    Refused,
    Report,
    Stale,
    State,
    View,
    encode_message,
    parse_message,
    reason_of,
)
from lbmux.manager.pool_health import RESTART_S
from lbmux.manager.relay import Answering, RelayedAnswers
from lbmux.manager.renewal import keep_valid
from lbmux.manager.signal import Signal

log = logging.getLogger(__name__)
RECONNECT_S, GOODBYE_S = 1.0, 1.0
Accept = Callable[[NodeState], Awaitable[None]]
"""Puts a state in force, or raises LbmuxError with the reason why it cannot be."""
TakeView = Callable[[View], None]
"""Takes the changes of the pool's health, and the primary's other decisions."""
Check = Callable[[NodeState], Awaitable[None]]
"""Raises LbmuxError if a state cannot be put in force."""


class NodeClient:
    """``path``: where the last state is stored; ``role``: what this node is; ``hosts``: addresses (`Hello.hosts`)."""

    def __init__(
        self, urls: Sequence[str], identity: Identity, role: Literal["mux", "agent", "edge"], path: Path,
        hosts: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        self._hosts = hosts
        self._urls = [url if "://" in url else f"https://{url}" for url in urls]
        self._identity, self._role, self._path = identity, role, path
        self.held = read_state(path)
        self.manager = ""
        """The URL of the connected manager, or an empty string."""
        self.answering: Answering = _not_yet
        """Answers requests that a manager relays."""
        self.health: Callable[[], tuple[HealthLine, ...]] = tuple
        """An agent's states of its backends; ``health_changed`` is sent when they change."""
        self.loads: Callable[[], tuple[LoadLine, ...]] = tuple
        """The last loads of its backends; another tuple each time, announced in the same way."""
        self.health_changed = Signal()
        self.local: Callable[[], LocalOverridesRequest] = LocalOverridesRequest
        """Overrides that were given at this node itself: a mux offers them to the primary, then they are replaced."""
        self.on_view: TakeView = self._keep_view
        self.viewed_at = time.monotonic()
        """Time of the last view from a primary, or of this client's start, on the monotonic clock."""
        self.early_view: View | None = None
        """What arrived before ``on_view`` was set."""
        self._latest: State | None = None
        self._arrived = asyncio.Event()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._last_error, self._is_running = "", False
        # Spread the nodes over the managers.
        self.name, self._pool = identity.subject.name, identity.subject.pool
        self._next = zlib.crc32(self.name.encode()) % len(self._urls)

    async def first(self, patience_s: float, check: Check) -> NodeState:
        """Return the state to start with: a manager's, or after ``patience_s`` without one the stored state.

        Without either, wait for a manager.  A state that ``check`` refuses is not used if there is a stored one.
        """
        async with self.running():
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s if self.held is not None else None):
                    await self._arrived.wait()
        message, self._latest = self._latest, None
        self._arrived.clear()
        if message is None:
            assert self.held is not None  # without a stored state there is no time limit
            log.warning("no manager answers: starting with revision %d as stored", self.held.revision)
            return self.held
        try:
            state = taken_over(self.held, message)
            await check(state)
        except LbmuxError as error:
            if self.held is None:
                raise
            log.error("revision %d refused: %s; starting with the stored one", message.revision, error)
            return self.held
        self._keep(state)
        return state

    @asynccontextmanager
    async def following(self, accept: Accept) -> AsyncIterator[None]:
        """Hand over the states of managers until the block ends."""
        accepting = asyncio.create_task(self._accept(accept))
        try:
            async with self.running():
                yield
        finally:
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Stay connected until the block ends, unless an outer block does that already."""
        if self._is_running:
            yield
            return
        works = (self._connect(), keep_valid(self._identity, lambda: self._urls))
        tasks, self._is_running = [asyncio.create_task(work) for work in works], True
        try:
            yield
            await self._say_goodbye()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.manager, self._socket, self._is_running = "", None, False

    async def _say_goodbye(self) -> None:
        """Let the primary know that an agent stops in an orderly way: its host is not down meanwhile."""
        if self._hello().serves_host:
            with suppress(ConnectionError, aiohttp.ClientError, TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await self._send(Health(whole=False, lines=(), back_in_s=RESTART_S))

    async def _connect(self) -> None:
        """Talk to one manager after the other."""
        while True:
            url = self._urls[self._next % len(self._urls)]
            try:
                await self._talk(url)
                reason = "the connection ended"
            except TimeoutError:
                reason = "it is silent"
            except (aiohttp.ClientError, OSError, LbmuxError) as error:
                reason = reason_of(error)
            self.manager, self._socket = "", None
            if reason != self._last_error:
                log.warning("manager %s: %s", url, reason)
            self._last_error = reason
            self._next += 1
            await asyncio.sleep(RECONNECT_S)

    async def _talk(self, url: str) -> None:
        tls = self._identity.client_context()
        async with aiohttp.ClientSession() as session:
            async with asyncio.timeout(SILENCE_S):
                self._socket = await session.ws_connect(f"{url}/v1/node", ssl=tls, max_msg_size=MAX_MESSAGE_BYTES)
            relayed = RelayedAnswers(lambda line: self.answering(line), self._send)
            reporting: asyncio.Task[None] | None = None
            try:
                await self._send(self._hello())
                if self._hello().serves_host:
                    reporting = asyncio.create_task(self._report_health())
                await self._listen(url, self._socket, relayed)
            finally:
                if reporting is not None:
                    reporting.cancel()
                await relayed.stop()

    async def _report_health(self) -> None:
        """Send all states, and then those that change."""
        sent: frozenset[HealthLine] | None = None
        sent_loads: tuple[LoadLine, ...] = ()
        with suppress(ConnectionError, aiohttp.ClientError):
            while True:
                changed, lines = self.health_changed.next, frozenset(self.health())
                keys = {line[:2] for line in lines}
                is_whole = sent is None or any(line[:2] not in keys for line in sent)
                new = lines if sent is None or is_whole else lines - sent
                loads = self.loads()
                new_loads = () if loads is sent_loads else loads
                await self._send(Health(whole=is_whole, lines=tuple(new), loads=new_loads))
                sent, sent_loads = lines, loads
                await changed.wait()

    def _take_view(self, view: View) -> bool:
        """Hand a view over; return whether its epoch is not too low."""
        if self.held is not None and view.epoch < self.held.epoch:
            return False
        self.viewed_at = time.monotonic()
        self.on_view(view)
        return True

    def _keep_view(self, view: View) -> None:
        weights = view.weights if view.weights is not None or self.early_view is None else self.early_view.weights
        lines = {line[:2]: line for line in (*(self.early_view.lines if self.early_view else ()), *view.lines)}
        self.early_view = view.model_copy(update={"lines": tuple(lines.values()), "weights": weights})

    async def _listen(self, url: str, socket: aiohttp.ClientWebSocketResponse, relayed: RelayedAnswers) -> None:
        while True:
            async with asyncio.timeout(SILENCE_S):
                received = await socket.receive()
            if received.type is not aiohttp.WSMsgType.TEXT:
                return
            message = parse_message(received.data, self._pool)
            if not self.manager:
                log.info("manager %s: connected", url)
                self.manager, self._last_error = url, ""
            if isinstance(message, State):
                await self._take(message)
            elif isinstance(message, Refused):
                raise ProtocolError(message.reason)
            elif isinstance(message, View):
                if not self._take_view(message) and self.held is not None:
                    await self._send(Stale(epoch=self.held.epoch))
            elif isinstance(message, Ask | More | Forget):
                relayed.take(message)
            else:
                await self._send(Alive())

    def _hello(self) -> Hello:
        held = self.held
        return Hello(
            role=self._role, version=__version__, epoch=held.epoch if held else 0,
            revision=held.revision if held else 0, overrides=held.stored.version if held else 0,
            digest=held.digest if held else "", hosts=self._hosts,
        )  # fmt: skip

    async def _take(self, state: State) -> None:
        """Hand a state to the task that puts it in force, unless it is not to be accepted."""
        judgement = judge(self.held, state)
        if judgement == "other_pool":
            raise ProtocolError(f"it belongs to pool {state.pool}; this node's state belongs to another")
        if judgement == "stale" and self.held is not None:
            log.error("refused epoch %d: %d has been seen", state.epoch, self.held.epoch)
            await self._send(Stale(epoch=self.held.epoch))
        if judgement in ("new", "same"):
            waiting = self._latest
            if state.file is None and waiting is not None and waiting.digest == state.digest:
                state = state.model_copy(update={"file": waiting.file})  # do not send it twice
            self._latest = state
            self._arrived.set()

    async def _accept(self, accept: Accept) -> None:
        """Put the latest state in force and report it, beginning with the state of the start."""
        if self.held is not None:
            await self._report(self.held.revision, self.held.stored.version)
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            message, self._latest = self._latest, None
            if message is None:
                continue
            refused, state = "", self.held
            try:
                state = taken_over(self.held, message)
                local = self.local()
                if not local.is_empty and self._role == "mux" and not await self._hand_over(local, message):
                    continue
                if not local.is_empty or judge(self.held, message) != "same":
                    await accept(state)
            except LbmuxError as error:
                refused, state = str(error), self.held
                if state is not None:
                    state = state.model_copy(update={"epoch": max(state.epoch, message.epoch)})
            await self._report_and_keep(message, state, refused)

    async def _hand_over(self, local: LocalOverridesRequest, state: State) -> bool:
        """Offer overrides to the primary; return whether the pool's ``state`` may replace them now."""
        tls = self._identity.client_context()
        return bool(self.manager) and await hand_over(self.manager, tls, local, state.overrides, self.name)

    async def _report_and_keep(self, message: State, state: NodeState | None, refused: str) -> None:
        """Report on a message, and store what is in force.

        Other nodes wait for the report, so it goes first. A new epoch is stored first, lest it be forgotten.
        """
        if state is not None and (self.held is None or state.epoch != self.held.epoch):
            self._keep(state)
        held, self.held = self.held, state
        await self._report(message.revision, message.overrides.version, refused)
        if state is not None and state != held:
            await asyncio.to_thread(write_state, self._path, state)

    async def _report(self, revision: int, overrides: int, refused: str = "") -> None:
        in_force = self.held.revision if self.held else 0
        with suppress(ConnectionError, aiohttp.ClientError):
            await self._send(Report(revision=revision, overrides=overrides, refused=refused, in_force=in_force))

    def _keep(self, state: NodeState) -> None:
        """Store what is in force, and the highest epoch."""
        if state != self.held:
            write_state(self._path, state)
        self.held = state

    async def _send(self, message: Message) -> None:
        if self._socket is not None and not self._socket.closed:
            await self._socket.send_str(encode_message(message, self._pool))


async def _not_yet(line: bytes) -> AsyncGenerator[bytes]:
    """Refuse requests of a daemon that is starting."""
    yield b'{"version": 1, "ok": false, "error": "the daemon is starting"}\n'
