"""Receives the health of backends from the agents of their hosts, over one persistent connection to each agent.

If an agent is silent, the mux keeps the last known states and shows for how long it has been silent.
"""

import asyncio
import json
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from lbmux.addresses import Address
from lbmux.config.models import BackendKey, Config
from lbmux.errors import SetupError
from lbmux.health.agent_channel import ChannelError, HealthSubscriber, read_token
from lbmux.health.load import Load

log = logging.getLogger(__name__)
SILENCE_S = 3.0
"""After this much silence the client reconnects."""
RETRY_S = 0.2, 2.0
"""The first and the longest pause before the next attempt, in seconds."""
Agent = tuple[Address, int]


class AgentHealthClient:
    """Calls ``on_result`` with every state that an agent reports of a backend on its own host."""

    def __init__(
        self, on_result: Callable[[BackendKey, bool, str], None], token: Path | None, local: Iterable[Address] = (),
        on_load: Callable[[BackendKey, Load], None] = lambda key, load: None,
    ) -> None:  # fmt: skip
        """``local``: the mux's own addresses, from which it connects, since agents accept known muxes only."""
        self._on_load = on_load
        self._on_result, self._token = on_result, read_token(token) if token is not None else None
        self._local = {address.version: (str(address), 0) for address in reversed([*local])}
        self._tasks: dict[Agent, asyncio.Task[None]] = {}
        self._backends: dict[Agent, frozenset[BackendKey]] = {}
        self._last: dict[Agent, float] = {}
        self._empty_at: dict[BackendKey, float] = {}
        """When the host of a backend without connections looked for some, in seconds of the monotonic clock."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def configure(self, config: Config) -> None:
        """Receive the health of exactly the backends of ``config``; connections that are still needed stay.

        Raises SetupError if agents are needed and there is no token.
        """
        wanted = defaultdict[Agent, set[BackendKey]](set)
        for service in config.services:
            if service.health is not None and service.health.by == "agent":
                for backend in service.backends:
                    wanted[backend.tunnel_to, service.health.agent_port].add((service.name, backend.name))
        if wanted and self._token is None:
            raise SetupError("health.by: agent", "the token is missing", "give its file with --health-token")
        self._backends = {agent: frozenset(keys) for agent, keys in wanted.items()}
        for agent in self._tasks.keys() - wanted.keys():
            self._tasks.pop(agent).cancel()
            self._last.pop(agent, None)
        self._empty_at = {key: at for key, at in self._empty_at.items() if any(key in keys for keys in wanted.values())}
        for agent in wanted.keys() - self._tasks.keys():
            self._tasks[agent] = asyncio.create_task(self._keep(agent))

    def silent_s(self, key: BackendKey) -> float | None:
        """Return for how many seconds a backend's agent has been silent, if over SILENCE_S; inf: it never spoke."""
        for agent, keys in self._backends.items():
            if key in keys:
                since = time.monotonic() - self._last.get(agent, -float("inf"))
                return since if since > SILENCE_S else None
        return None

    def is_empty(self, key: BackendKey, since: float) -> bool:
        """Return whether a backend's host has looked for connections after ``since`` and found none at the last time.

        ``since`` is in seconds of the monotonic clock.
        """
        return self._empty_at.get(key, -float("inf")) > since

    async def _keep(self, agent: Agent) -> None:
        """Connect, and reconnect after each failure."""
        pause_s, logged = RETRY_S[0], ""
        while True:
            begun = time.monotonic()
            try:
                await self._listen(agent)
            except (OSError, ChannelError, ValueError, KeyError, TypeError, AttributeError) as error:
                why = "it is silent" if isinstance(error, TimeoutError) else str(error)
                if why != logged:
                    log.warning("no health from the agent at %s, port %d: %s", *agent, why)
                logged = why
            if self._last.get(agent, -float("inf")) > begun:  # an accepted connection without a message is a failure
                pause_s, logged = RETRY_S[0], ""
            await asyncio.sleep(pause_s * random.uniform(0.7, 1.3))  # spreads load
            pause_s = min(2 * pause_s, RETRY_S[1])

    async def _listen(self, agent: Agent) -> None:
        assert self._token is not None  # configure checks this
        host, port = agent
        async with asyncio.timeout(SILENCE_S):
            reader, writer = await asyncio.open_connection(
                str(host), port, limit=1 << 20, local_addr=self._local.get(host.version)
            )
        try:
            async with asyncio.timeout(SILENCE_S):
                subscriber = await HealthSubscriber.opened(reader, writer, self._token)
            while True:
                async with asyncio.timeout(SILENCE_S):
                    message = await subscriber.receive()
                if agent not in self._last:
                    log.info("receiving health from the agent at %s, port %d", host, port)
                self._last[agent] = time.monotonic()
                for one in message["backends"]:
                    key = str(one["service"]), str(one["backend"])
                    if key in self._backends.get(agent, ()):  # accept only backends of the agent's own host
                        self._on_result(key, bool(one["up"]), f"its agent: {one['reason']}")
                self._note_connections(agent, message.get("connections") or {})
                for service, backend, *load in message.get("loads", ()):
                    if (service, backend) in self._backends.get(agent, ()):
                        self._on_load((service, backend), Load(*map(float, load)))
        except json.JSONDecodeError as error:
            raise ChannelError("the peer is not an lbmux agent") from error
        finally:
            writer.close()

    def _note_connections(self, agent: Agent, counted: dict[str, Any]) -> None:
        """Note which of the agent's backends have no connection; the others have some, or their number is unknown."""
        mine = self._backends.get(agent, frozenset())
        for key in mine & self._empty_at.keys():
            del self._empty_at[key]
        for service, backend, number in counted.get("counts", ()):
            if number == 0 and (service, backend) in mine:
                self._empty_at[service, backend] = time.monotonic() - float(counted["age_s"])
