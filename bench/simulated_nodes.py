"""Nodes that cost little, for a pool of a thousand: the real protocol over TLS, but only what a report needs is read.

A node of lbmux validates each message, stores its state and tells its tables. With a thousand of them in one process
that takes more than the manager does, so the process would be measured instead of the manager.
"""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp

from lbmux import __version__
from lbmux.manager.node_messages import MAX_MESSAGE_BYTES, Alive, Hello, encode_message

STATE, ALIVE = '{"kind":"state"', '{"kind":"alive"'
VERSIONS = re.compile(r'"revision":(\d+).*"overrides":\{"version":(\d+)', re.DOTALL)
REPORT = '{{"kind":"report","pool":"{}","revision":{},"overrides":{},"refused":"","in_force":{}}}'
AT_ONCE = 20


class SimulatedNode:
    """``overrides``: the version that it has reported as in force, and ``at`` when."""

    def __init__(self, url: str, tls: ssl.SSLContext, pool: str) -> None:
        self._url, self._tls, self._pool = url, tls, pool
        self.overrides, self.at = -1, 0.0

    async def follow(self, session: aiohttp.ClientSession) -> None:
        """Report each state as in force at once."""
        hello = Hello(role="mux", version=__version__, epoch=0, revision=0, overrides=0)
        alive = encode_message(Alive(), self._pool)
        async with session.ws_connect(f"{self._url}/v1/node", ssl=self._tls, max_msg_size=MAX_MESSAGE_BYTES) as socket:
            await socket.send_str(encode_message(hello, self._pool))
            async for message in socket:
                text = message.data
                if text.startswith(STATE):
                    match = VERSIONS.search(text)
                    assert match is not None  # each state has both
                    revision, overrides = match.groups()
                    self.overrides, self.at = int(overrides), time.perf_counter()
                    await socket.send_str(REPORT.format(self._pool, revision, overrides, revision))
                elif text.startswith(ALIVE):
                    await socket.send_str(alive)


@asynccontextmanager
async def simulated(nodes: Sequence[SimulatedNode]) -> AsyncIterator[None]:
    """Connect nodes, some at once, and let them follow until the block ends."""
    tasks = list[asyncio.Task[None]]()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        try:
            for number in range(0, len(nodes), AT_ONCE):
                some = nodes[number : number + AT_ONCE]
                tasks += [asyncio.create_task(node.follow(session)) for node in some]
                while any(node.overrides < 0 for node in some):
                    await asyncio.sleep(0.01)
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
