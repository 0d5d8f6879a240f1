"""A mux's tables behind a control socket: what `lbmux explain` asks, without a mux."""

from pathlib import Path
from typing import Any

from lbmux.api.answers import Health, HealthLine
from lbmux.api.requests import GetHealth
from lbmux.backends.override_commands import set_admin_state
from lbmux.backends.overrides import OverriddenState, Overrides, with_overrides
from lbmux.backends.tracker import BackendTracker
from lbmux.config.models import Config
from lbmux.daemons.drivers import Driver
from lbmux.daemons.status_handlers import StatusHandlers
from lbmux.targets.regions import now_ticks
from lbmux.tools.explain_mux import explain_live
from lbmux.tools.explanation import Explanation
from lbmux.tools.packet_text import ClientPacket
from tests.api.answering import ServerThread
from tests.linux.inside import LOCAL, Inside


class Served(Inside):
    """A mux's tables behind a control socket, as the mux itself would have it."""

    def __init__(self, path: Path, **how: Any) -> None:
        super().__init__(**how)
        self.path = path
        self.tracker, self.wanted, self.overrides = BackendTracker(), self.mux.config, Overrides()
        if self.wanted is not None:
            self.tracker.configure(self.wanted)
        runtime = {"interface": "eth0", "addresses": [str(LOCAL)]}
        self.status = StatusHandlers(
            lambda: self.snapshot, Driver("mux", "eth0", self.tables, 0, "packet"), path, runtime
        )
        server = ServerThread(path, self.status.handlers() | {GetHealth: self._health})
        self.answers, self.close = server.answers, server.close

    async def _health(self, request: GetHealth) -> Health:
        assert self.wanted is not None
        lines = self.tracker.lines(self.wanted, with_overrides(self.wanted, self.overrides), self.overrides)
        return Health(1, "mux", [HealthLine(**line, drained=False) for line in lines])

    def reload(self, config: dict[str, Any]) -> None:
        """Put another configuration in force."""
        self.wanted = Config.model_validate(config)
        self.tracker.configure(self.wanted)
        self.refresh()

    def override(self, admin_state: OverriddenState, backend: str) -> None:
        """What an operator wants; in force with the next `refresh`."""
        assert self.wanted is not None
        self.overrides, _ = set_admin_state(admin_state, backend, None, 0.0)(self.wanted, self.overrides)

    def refresh(self) -> None:
        """The backends' states have changed."""
        assert self.wanted is not None
        self.mux.commit(
            self.mux.plan(self.tracker.effective(with_overrides(self.wanted, self.overrides), self.overrides))
        )
        self.now = now_ticks()

    def explain(self, text: str, **how: bool) -> Explanation:
        return explain_live(ClientPacket.parse(text, **how), self.path)  # type: ignore[arg-type]


def step(explanation: Explanation, name: str) -> dict[str, object]:
    """What a step found, as data."""
    return next(step.data for step in explanation.steps if step.step == name)
