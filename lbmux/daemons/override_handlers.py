"""Control socket handlers for operator overrides: drain, disable, remove, enable, weight, add.

The answer comes when the override is in force, with the states of its backends.
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from lbmux.backends import override_commands
from lbmux.backends.override_commands import OverrideError
from lbmux.backends.overrides import OverriddenState
from lbmux.config.models import BackendKey
from lbmux.daemons.reloader import Reloader
from lbmux.daemons.status_handlers import FORMAT

log = logging.getLogger(__name__)


class OverrideHandlers:
    """``lines``: the states of all backends; ``forget`` is called with the backends whose overrides changed."""

    def __init__(
        self, reloader: Reloader, program: str, lines: Callable[[], Sequence[dict[str, Any]]],
        forget: Callable[[Collection[BackendKey]], None] = lambda keys: None, only: Collection[str] = (),
    ) -> None:  # fmt: skip
        """``only``: the overrides that this role accepts; empty for all."""
        self._reloader, self._program, self._only = reloader, program, only
        self._lines, self._forget = lines, forget

    def handlers(self) -> dict[str, Any]:
        return {"override": self.override, "weight": self.weight, "add": self.add}

    async def override(
        self, backend: str, override: OverriddenState | None = None, service: str | None = None
    ) -> dict[str, Any]:
        """Drain, disable or remove a backend; None enables it."""
        return await self._follow(
            override or "enable", override_commands.set_admin_state(override, backend, service, time.time())
        )

    async def weight(self, backend: str, weight: int | None = None, service: str | None = None) -> dict[str, Any]:
        """Set a backend's weight; None restores the file's."""
        said = "weight as in the file" if weight is None else f"weight {weight}"
        return await self._follow(said, override_commands.set_weight(weight, backend, service, time.time()))

    async def add(self, service: str, backend: dict[str, Any]) -> dict[str, Any]:
        return await self._follow("add", override_commands.add(service, backend, time.time()))

    async def _follow(self, what: str, change: override_commands.Change) -> dict[str, Any]:
        if self._only and what not in self._only:
            raise OverrideError(what, "is for muxes, which choose backends; here there is " + ", ".join(self._only))
        keys = await self._reloader.change(change)
        self._forget(keys)
        for key in keys:
            log.info("backend %s of service %s: %s by command", key[1], key[0], what)
        lines = [line for line in self._lines() if (line["service"], line["backend"]) in keys]
        return {"version": FORMAT, "program": self._program, "health": lines}
