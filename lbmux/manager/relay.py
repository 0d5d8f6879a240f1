"""Requests that a manager relays to a node: lines of the control protocol (lbmux.api.protocol), over their connection.

A node sends at most `WINDOW` lines that the manager has not passed on, so a slow reader holds up nothing else.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress

from lbmux.errors import LbmuxError
from lbmux.manager.node_messages import Answer, Ask, Forget, Message, More, ProtocolError

log = logging.getLogger(__name__)
WINDOW = 8
MOST_ASKS = 256
"""Requests to one node at a time."""
Send = Callable[[Message], Awaitable[None]]
Answering = Callable[[bytes], AsyncGenerator[bytes]]
"""Yields the lines of a request's answers."""


class RelayError(LbmuxError):
    """A request that cannot be relayed to a node."""

    node: str
    reason: str
    manager: str = ""
    """The URL of a manager that may reach the node, or an empty string."""

    def __str__(self) -> str:
        return f"{self.node}: {self.reason}"


class Relay:
    """The manager's side: asks the node at the other end of ``send``; ``take`` gets its answers."""

    def __init__(self, node: str, send: Send) -> None:
        self._node, self._send = node, send
        self._asked: dict[int, asyncio.Queue[str | None]] = {}
        self._next = 0
        self._closed = asyncio.Event()

    async def ask(self, line: str) -> AsyncGenerator[str]:
        """Yield the lines of the node's answers; raise RelayError if its connection ends before the last."""
        if len(self._asked) >= MOST_ASKS:
            raise RelayError(self._node, f"{MOST_ASKS} requests are under way there")
        number, lines = self._next, asyncio.Queue[str | None]()
        self._next += 1
        self._asked[number] = lines
        is_whole = False
        try:
            await self._send(Ask(id=number, line=line))
            while (answer := await self._line(lines)) is not None:
                yield answer
                await self._send(More(id=number))
            is_whole = True
        except ConnectionError as error:
            raise RelayError(self._node, "its connection ended") from error
        finally:
            del self._asked[number]
            if not is_whole:
                with suppress(ConnectionError):
                    await self._send(Forget(id=number))

    def take(self, answer: Answer) -> None:
        """Take a line from the node; raise ProtocolError if it sends more than it may."""
        if (lines := self._asked.get(answer.id)) is not None:
            if lines.qsize() > WINDOW:
                raise ProtocolError(f"more than {WINDOW} lines of an answer")
            lines.put_nowait(answer.line)

    def close(self) -> None:
        """End all requests: the connection has ended."""
        self._closed.set()

    async def _line(self, lines: "asyncio.Queue[str | None]") -> str | None:
        """Return the next line; None after the last."""
        getting, closing = asyncio.create_task(lines.get()), asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait((getting, closing), return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                raise RelayError(self._node, "its connection ended")
            return getting.result()
        finally:
            getting.cancel()
            closing.cancel()


class RelayedAnswers:
    """The node's side: answers what a manager asks, for as long as one connection lasts."""

    def __init__(self, answering: Answering, send: Send) -> None:
        self._answering, self._send = answering, send
        self._asked: dict[int, tuple[asyncio.Task[None], asyncio.Semaphore]] = {}

    def take(self, message: Ask | More | Forget) -> None:
        if isinstance(message, Ask):
            window = asyncio.Semaphore(WINDOW)
            task = asyncio.create_task(self._answer(message, window))
            self._asked[message.id] = task, window
            task.add_done_callback(lambda _: self._asked.pop(message.id, None))
        elif message.id in self._asked:
            task, window = self._asked[message.id]
            if isinstance(message, More):
                window.release()
            else:
                task.cancel()

    async def stop(self) -> None:
        """Cancel all requests."""
        tasks = [task for task, _ in self._asked.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, ask: Ask, window: asyncio.Semaphore) -> None:
        try:
            async with aclosing(self._answering(ask.line.encode())) as lines:
                async for line in lines:
                    await window.acquire()
                    await self._send(Answer(id=ask.id, line=line.decode()))
            await self._send(Answer(id=ask.id, line=None))
        except ConnectionError:
            log.debug("request %d: the manager has gone", ask.id)
