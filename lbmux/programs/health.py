"""Health in a mux: probes on its event loop, their verdict in its tables, and the commands to drain and disable."""

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np

from lbmux.control import live_flows
from lbmux.control.config import Config
from lbmux.control.health.effective import Key, Order
from lbmux.control.health.lives import Lives
from lbmux.control.health.prober import Bind, Prober
from lbmux.control.moment import Moment
from lbmux.errors import LbmuxError, SetupError
from lbmux.programs.hearing import Hearing
from lbmux.programs.reload import Reloader
from lbmux.programs.showing import FORMAT, LINES_AN_ANSWER

log = logging.getLogger(__name__)
DRAINED_S = 1.0
"""Between two looks whether a draining backend has flows left."""


class Health:
    """Between probes and tables: a state that changes has the tables made anew, several at a time if they come so."""

    def __init__(
        self, lives: Lives, reloader: Reloader, moment: Callable[[], Moment], into_tunnel: Bind,
        token: Path | None = None,
    ) -> None:  # fmt: skip
        """``token``: the file with what agents and muxes prove themselves by."""
        self._lives, self._reloader, self._moment = lives, reloader, moment
        self._prober = Prober(self._heard, into_tunnel=into_tunnel)
        self._hearing = Hearing(self._heard, token)
        self._changed = asyncio.Event()
        self._drained: set[Key] = set()

    def configure(self, config: Config) -> None:
        self._lives.configure(config)
        self._prober.configure(config)
        try:
            self._hearing.configure(config)
        except SetupError as error:
            log.error("backends that agents probe stay as they are: %s", error)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._watch_drained())]
        async with self._prober, self._hearing:
            self._hearing.configure(self._reloader.wanted)  # without a token a mux does not start
            self.configure(self._reloader.wanted)
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def handlers(self) -> dict[str, Any]:
        return {"health": self.health, "order": self.order}

    async def health(self) -> AsyncIterator[dict[str, Any]]:
        """A stream, as other long lists are: of 10,000 backends packets would wait."""
        lines = await asyncio.to_thread(self._lives.lines, self._reloader.wanted)
        for first in range(0, max(1, len(lines)), LINES_AN_ANSWER):
            some = lines[first : first + LINES_AN_ANSWER]
            health = [self._with_silence(line) | {"drained": _key(line) in self._drained} for line in some]
            yield {"version": FORMAT, "program": "mux", "health": health}

    def _with_silence(self, line: dict[str, Any]) -> dict[str, Any]:
        """What is known of a backend whose agent says nothing may be old."""
        silent_s = self._hearing.silent_s(_key(line))
        if silent_s is None:
            return line
        said = "nothing heard from its agent yet"
        if not math.isinf(silent_s):
            said = f"its agent has said nothing for {silent_s:.0f} s"
        return line | {"reason": f"{line['reason']}; {said}"}

    async def order(self, backend: str, order: Order | None = None, service: str | None = None) -> dict[str, Any]:
        """Drain or disable a backend, or (None) have it serve; answered when the tables say so."""
        keys = self._lives.order(self._reloader.wanted, order, backend, service)
        self._drained -= set(keys)
        for key in keys:
            log.info("backend %s of service %s: %s by command", key[1], key[0], order or "enable")
        await self._reloader.refresh()
        lines = self._lives.lines(self._reloader.wanted)
        return {"version": FORMAT, "program": "mux", "health": [line for line in lines if _key(line) in keys]}

    def _heard(self, key: Key, healthy: bool, reason: str) -> None:
        if self._lives.heard(key, healthy, reason):
            log.info("backend %s of service %s is %s: %s", key[1], key[0], "up" if healthy else "down", reason)
            self._changed.set()

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._reloader.refresh()
            except LbmuxError as error:
                log.error("the backends' new states are not in force: %s", error)

    async def _watch_drained(self) -> None:
        while True:
            await asyncio.sleep(DRAINED_S)
            moment = self._moment()
            draining = {key for key, order in self._lives.orders.items() if order == "drain" and key in moment.rows}
            self._drained &= draining
            left = draining - self._drained
            if not left:
                continue
            flows = await asyncio.to_thread(live_flows.by_backend, moment)
            for key in sorted(left):
                if not np.any(flows[moment.rows[key]]):
                    self._drained.add(key)
                    log.info("backend %s of service %s is drained: no flow left", key[1], key[0])


def _key(line: dict[str, Any]) -> Key:
    return line["service"], line["backend"]
