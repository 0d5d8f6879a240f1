"""Relays the health of backends through a manager: it receives agents' reports and holds its muxes' view."""

import asyncio
import logging
import time
from collections.abc import Collection, Iterable

from lbmux.backends.auto_weights import AutoWeights
from lbmux.config.models import BackendKey
from lbmux.manager.guard_rails import Wanted
from lbmux.manager.node_messages import HealthLine, LoadLine, WeightLine
from lbmux.manager.placement import Placement
from lbmux.manager.pool_health import BATCH_S, HealthCollector, HealthView, key_of
from lbmux.manager.pool_watermarks import PoolWatermarks
from lbmux.manager.signal import Signal

log = logging.getLogger(__name__)
MOST_LOADS = 100_000
"""Loads that are kept for a primary at most."""
BEAT_S = 1.0
"""Longest time between two batches of a view, so that muxes know that there is a primary."""
Lines = dict[BackendKey, HealthLine]


class HealthRelay:
    """``local``: the reports of the agents that are connected here."""

    def __init__(self) -> None:
        self._watermarks = PoolWatermarks()
        self._placement = Placement()
        self._foreign = set[tuple[str, BackendKey]]()
        self.local: dict[str, Lines] = {}
        self.stopping: dict[str, float] = {}
        """Agents that were connected here and have stopped, and in which time they are expected back, in seconds."""
        self.view = HealthView()
        self.viewed = Signal()
        """Sent when the view's number changes."""
        self.reported = Signal()
        """Sent when an agent that is connected here reports or disconnects."""
        self._collector: HealthCollector | None = None
        self._loads = list[LoadLine]()
        """Those that agents have reported here and that the primary does not have yet."""
        self._auto = AutoWeights()
        self._wanted: Wanted | None = None
        self._due = asyncio.Event()

    def report(self, agent: str, hosts: Collection[str], lines: Iterable[HealthLine], whole: bool) -> None:
        """Take the report of an agent that is connected here about backends on its own hosts; ignore the rest.

        ``hosts``: its addresses.  Backends that are not configured, such as those that are being removed, are taken.
        """
        known = self.local.setdefault(agent, {})
        self.stopping.pop(agent, None)
        if whole:
            known.clear()
        reported = tuple(line for line in lines if self._is_own(agent, hosts, key_of(line)))
        known.update((key_of(line), line) for line in reported)
        self.collect(agent, reported, whole)
        self.reported.send()

    def _is_own(self, agent: str, hosts: Collection[str], key: BackendKey) -> bool:
        if self._placement.may_be_on(key, hosts):
            return True
        if (agent, key) not in self._foreign:
            self._foreign.add((agent, key))
            log.warning("agent %s reports %s, which is on another host: ignored", agent, "/".join(key))
        return False

    def expect(self, agent: str, back_in_s: float) -> None:
        """Note that an agent that is connected here stops, and is expected back."""
        self.stopping[agent] = back_in_s
        self.collect_stop(agent, back_in_s)
        self.reported.send()

    def collect_stop(self, agent: str, back_in_s: float) -> None:
        """Note on the primary that an agent stops."""
        if self._collector is not None:
            self._collector.expect(agent, back_in_s)

    def ended(self, agent: str) -> None:
        """Note that an agent is no longer connected here."""
        if self.local.pop(agent, None) is not None:
            self.collect_end(agent)
            self.reported.send()

    def collect(self, agent: str, lines: Iterable[HealthLine], whole: bool, via: str = "") -> None:
        """Take a report on the primary; ``via``: the other manager to which the agent is connected, if any."""
        if self._collector is not None:
            self._collector.report(agent, lines, whole, via)
            self._due.set()

    def report_loads(self, hosts: Collection[str], loads: Iterable[LoadLine]) -> None:
        """Take the loads of backends on the hosts of an agent that is connected here."""
        own = [one for one in loads if self._placement.may_be_on((one[0], one[1]), hosts)]
        if self._collector is not None:
            self.collect_loads(own)
        elif own:
            self._loads = [*self._loads, *own][-MOST_LOADS:]
            self.reported.send()

    def take_loads(self) -> tuple[LoadLine, ...]:
        """Return the loads that the primary does not have yet."""
        taken, self._loads = tuple(self._loads), []
        return taken

    def collect_loads(self, loads: Iterable[LoadLine]) -> None:
        """Decide weights on the primary."""
        for service, backend, *load in loads:
            if self._auto.report((service, backend), load, time.monotonic()):
                self._due.set()

    def _follow_loads(self) -> None:
        """Follow the configured backends; new ones begin with their weights in the view."""
        if self._wanted is not None:
            known = {(service, backend): weight for service, backend, weight in self.view.weights}
            admin_states = self._wanted.overrides.admin_states
            self._auto.configure(self._wanted.services.values(), admin_states, known, time.monotonic())

    def _weights(self) -> tuple[WeightLine, ...]:
        return tuple((*key, weight) for key, weight in self._auto.weights.items())

    def collect_end(self, agent: str, via: str = "") -> None:
        """Note on the primary that an agent has disconnected from a manager."""
        if self._collector is not None:
            self._collector.ended(agent, time.monotonic(), via)
            self._due.set()

    def configure(self, wanted: Wanted, base: Wanted | None = None) -> None:
        """Decide the watermarks by another configuration, or with other overrides, and learn the hosts of its backends.

        ``base``: what all but the canary have, while there is one.
        """
        self._watermarks.configure(wanted)
        self._placement.configure(wanted, base)
        self._wanted = wanted
        self._follow_loads()
        self._due.set()

    def follow(
        self, epoch: int, number: int, lines: tuple[HealthLine, ...], kept: tuple[str, ...] | None,
        weights: tuple[WeightLine, ...] | None = None,
    ) -> None:  # fmt: skip
        """Take a batch from the primary."""
        self.view.take(epoch, number, lines, kept, weights)
        self.viewed.send()

    async def lead(self, epoch: int) -> None:
        """Number the view as the primary of an epoch, until it is cancelled."""
        self._collector, self._auto = HealthCollector(), AutoWeights()
        self._follow_loads()
        for agent, lines in self.local.items():
            self._collector.report(agent, lines.values(), True)
        number, beat = 0, 0.0
        try:
            while True:
                self._due.clear()
                looked_at = time.monotonic()
                changed = self._collector.changes(looked_at)
                kept = self._watermarks.below(self._collector.is_up, self.view.kept or ())
                weights = None if (now := self._weights()) == self.view.weights else now
                if changed or kept != self.view.kept or weights is not None or time.monotonic() >= beat:
                    number, beat = number + 1, time.monotonic() + BEAT_S
                    self.follow(epoch, number, changed, kept, weights)
                try:
                    async with asyncio.timeout(BEAT_S):
                        await self._due.wait()
                    await asyncio.sleep(max(0.0, looked_at + BATCH_S - time.monotonic()))
                except TimeoutError:
                    continue
        finally:
            self._collector = None
