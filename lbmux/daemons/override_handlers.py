"""Control socket handlers for operator overrides: drain, disable, remove, enable, weight, add.

The answer comes when the override is in force, with the states of its backends.
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence

from lbmux.api import requests
from lbmux.api.answers import BackendHealth, Overridden
from lbmux.api.control_server import Handler, Kind
from lbmux.api.protocol import VERSION
from lbmux.backends import override_commands
from lbmux.backends.override_commands import OverrideError
from lbmux.config.models import BackendKey
from lbmux.daemons.reloader import Reloader

log = logging.getLogger(__name__)


class OverrideHandlers:
    """``states``: the states of all backends; ``forget`` is called with the backends whose overrides changed."""

    def __init__(
        self, reloader: Reloader, program: str, states: Callable[[], Sequence[BackendHealth]],
        forget: Callable[[Collection[BackendKey]], None] = lambda keys: None, only: Collection[str] = (),
    ) -> None:  # fmt: skip
        """``only``: the overrides that this role accepts; empty for all."""
        self._reloader, self._program, self._only = reloader, program, only
        self._states, self._forget = states, forget

    def handlers(self) -> dict[Kind, Handler]:
        return {requests.Override: self.override, requests.SetWeight: self.weight, requests.AddBackend: self.add}

    async def override(self, request: requests.Override) -> Overridden:
        now = time.time()
        until, deadline = (None if s is None else now + s for s in (request.for_s, request.deadline_s))
        arguments = request.override, request.backend, request.service
        change = override_commands.set_admin_state(*arguments, now, until, deadline)
        return await self._follow(request.override or "enable", change)

    async def weight(self, request: requests.SetWeight) -> Overridden:
        text = "weight as in the file" if request.weight is None else f"weight {request.weight}"
        change = override_commands.set_weight(request.weight, request.backend, request.service, time.time())
        return await self._follow(text, change)

    async def add(self, request: requests.AddBackend) -> Overridden:
        return await self._follow("add", override_commands.add(request.service, request.backend, time.time()))

    async def _follow(self, what: str, change: override_commands.Change) -> Overridden:
        if self._only and what not in self._only:
            raise OverrideError(what, "is for muxes, which choose backends; here there is " + ", ".join(self._only))
        keys = await self._reloader.change(change)
        self._forget(keys)
        for key in keys:
            log.info("backend %s of service %s: %s by command", key[1], key[0], what)
        return Overridden(VERSION, self._program, [state for state in self._states() if state.key in keys])
