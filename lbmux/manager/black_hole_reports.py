"""A mux's side of `black_hole_handler`: it reports its black holes to the manager, in order, without waiting for it."""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable

import aiohttp

from lbmux.manager.api_models import BlackHoleRequest

log = logging.getLogger(__name__)
MOST, ANSWER_S, AGAIN_S = 64, 5.0, 1.0
"""The most reports that wait, the oldest are forgotten; time for an answer, and until a report is sent again."""


class BlackHoleReports:
    """``manager``: the URL of the connected manager, or an empty string; ``tls``: the node's context for it."""

    def __init__(self, manager: Callable[[], str], tls: Callable[[], ssl.SSLContext]) -> None:
        self._manager, self._tls = manager, tls
        self._waiting = deque[BlackHoleRequest](maxlen=MOST)
        self._has_some = asyncio.Event()

    def add(self, report: BlackHoleRequest) -> None:
        self._waiting.append(report)
        self._has_some.set()

    async def run(self) -> None:
        """Send each report until the manager has answered, whatever it says."""
        while True:
            await self._has_some.wait()
            self._has_some.clear()
            while self._waiting:
                report = self._waiting[0]
                if not await self._is_answered(report):
                    await asyncio.sleep(AGAIN_S)
                elif self._waiting and self._waiting[0] is report:
                    self._waiting.popleft()

    async def _is_answered(self, report: BlackHoleRequest) -> bool:
        if not (url := self._manager()):
            return False
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER_S)) as session,
                session.post(f"{url}/v1/black-holes", data=report.model_dump_json(), ssl=self._tls()) as response,
            ):
                if response.status not in (200, 503):  # 503: there is no primary yet
                    log.warning("manager %s did not take the report about VIP %s: %s", url, report.vip, response.status)
                return response.status != 503
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False
