"""The health of the pool's backends as one numbered view, from what agents report (Ananta, SIGCOMM 2013, 3.4.3).  Pure.

The primary collects reports and numbers each batch of changes. All managers keep a copy of the view, and send it to
their muxes, so that all tables are made from the same states. The view is in memory only. A new primary's is empty
until agents report to it; a mux keeps the states that a view does not name, so nothing is marked down by an election.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from lbmux.config.models import BackendKey
from lbmux.manager.node_messages import HealthLine, WeightLine

BATCH_S = 0.02
"""Changes within this time get one number, in seconds."""
AGENT_SILENCE_S = 6.0
"""Silence of its agent after which a host is down, in seconds; an agent reaches another manager sooner."""
RESTART_S = 120.0
"""The same for an agent that was stopped by command, such as for an upgrade: its kernel programs keep forwarding."""
SILENT = "its agent is silent"
HALF_LIFE_S, MOST_DOWNS, REUSE_DOWNS = 60.0, 4.0, 2.0
"""Flap damping: half-life of the count of failures; count above which a backend stays down; count for its return."""
LOGGED = 64
"""Number of batches that are kept, for nodes and managers that lack only the latest ones."""


def key_of(line: HealthLine) -> BackendKey:
    return line[0], line[1]


class HealthView:
    """A copy of the view; ``epoch`` is that of the primary that numbered it."""

    def __init__(self) -> None:
        self.epoch = self.number = 0
        self.kept: tuple[str, ...] | None = None
        """The services below their watermark; None: the primary does not say."""
        self.weights: tuple[WeightLine, ...] = ()
        """Those of backends with `weight: auto`."""
        self._weighted_at = 0
        self._lines: dict[BackendKey, HealthLine] = {}
        self._log = deque[tuple[int, tuple[HealthLine, ...]]](maxlen=LOGGED)

    def take(
        self, epoch: int, number: int, lines: tuple[HealthLine, ...], kept: tuple[str, ...] | None = None,
        weights: tuple[WeightLine, ...] | None = None,
    ) -> None:  # fmt: skip
        """Add the batch of this number; ``weights``: all, if they have changed."""
        if weights is not None:
            self.weights, self._weighted_at = weights, number
        if epoch != self.epoch:
            self._log.clear()
            self._weighted_at = number  # numbers begin at 1 again
        self.epoch, self.number, self.kept = epoch, number, kept
        self._lines.update((key_of(line), line) for line in lines)
        self._log.append((number, lines))

    def since(self, epoch: int, number: int) -> tuple[HealthLine, ...]:
        """Return the states that changed after a batch of an epoch; all states if that batch is no longer kept."""
        if epoch == self.epoch and self._log and self._log[0][0] <= number + 1:
            return tuple({key_of(line): line for at, lines in self._log if at > number for line in lines}.values())
        return tuple(self._lines.values())

    def weights_since(self, epoch: int, number: int) -> tuple[WeightLine, ...] | None:
        """Return all weights if they have changed after a batch of an epoch."""
        return self.weights if epoch != self.epoch or number < self._weighted_at else None


@dataclass
class Flaps:
    """The recent failures of a backend; ``held``: it counts as down although its agent reports it as up."""

    downs: float = 0.0
    at: float = 0.0
    held: bool = False

    def count(self, now: float) -> float:
        return float(self.downs * 0.5 ** ((now - self.at) / HALF_LIFE_S))

    def went_down(self, now: float) -> None:
        self.downs, self.at = self.count(now) + 1, now
        self.held |= self.downs > MOST_DOWNS

    def is_held(self, now: float) -> bool:
        self.held &= self.count(now) > REUSE_DOWNS
        return self.held


@dataclass
class Agent:
    """One agent's report; ``silent_since`` is None while it is connected to some manager."""

    lines: dict[BackendKey, HealthLine] = field(default_factory=dict)
    silent_since: float | None = None
    via: str = ""
    """The manager to which it is, or was last, connected."""
    patience_s: float = AGENT_SILENCE_S
    """The silence after which its host is down, in seconds."""
    is_due: bool = True
    """Whether the next ``changes`` must examine it: it reported, it is silent, or one of its backends is held down."""
    pending: dict[BackendKey, None] = field(default_factory=dict)
    """The backends to examine then, in this order: reported ones, and those that are held down."""
    was_silent: bool = False
    """Whether its host was down at the last ``changes``; all backends are examined when that changes."""

    def is_silent(self, now: float) -> bool:
        return self.silent_since is not None and now - self.silent_since >= self.patience_s


class HealthCollector:
    """The primary's side: takes reports, and returns what changed.  Times are of any steady clock, in seconds."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}
        self._flaps: dict[BackendKey, Flaps] = {}
        self._said: dict[BackendKey, HealthLine] = {}

    def is_up(self, key: BackendKey) -> bool | None:
        """Return a backend's state as ``changes`` returned it last; None: none was reported."""
        report = self._said.get(key)
        return None if report is None else report[2]

    def report(self, agent: str, lines: Iterable[HealthLine], whole: bool, via: str = "") -> None:
        """Take an agent's states; ``whole``: these are all of its states; ``via``: its manager."""
        known = self._agents.setdefault(agent, Agent())
        known.via = via
        known.silent_since, known.patience_s, known.is_due = None, AGENT_SILENCE_S, True
        if whole:
            known.lines.clear()
        for line in lines:
            known.lines[key_of(line)] = line
            known.pending[key_of(line)] = None

    def expect(self, agent: str, back_in_s: float) -> None:
        """Note that an agent stops and is expected back; its host is not down meanwhile."""
        if (known := self._agents.get(agent)) is not None:
            known.patience_s = max(AGENT_SILENCE_S, min(back_in_s, RESTART_S))

    def ended(self, agent: str, now: float, via: str = "") -> None:
        """Note that an agent's connection to a manager has ended; it may be about to reach another, or has already."""
        known = self._agents.get(agent)
        if known is not None and known.via == via:
            known.silent_since, known.is_due = now, True

    def changes(self, now: float) -> tuple[HealthLine, ...]:
        """Return the states that changed since the last call."""
        changed = []
        for agent in (one for one in self._agents.values() if one.is_due):
            is_silent, held = agent.is_silent(now), dict[BackendKey, None]()
            for key in agent.pending if is_silent == agent.was_silent else agent.lines:
                if (line := agent.lines.get(key)) is None:  # it is no longer reported
                    continue
                wanted = self._damped(key, (*key, False, SILENT) if is_silent else line, now)
                if wanted[2] != line[2] and not is_silent:
                    held[key] = None
                if wanted != self._said.get(key):
                    self._said[key] = wanted
                    changed.append(wanted)
            agent.was_silent, agent.pending = is_silent, held
            agent.is_due = bool(held) or (agent.silent_since is not None and not is_silent)
        return tuple(changed)

    def _damped(self, key: BackendKey, line: HealthLine, now: float) -> HealthLine:
        report, is_up = self._said.get(key), line[2]
        if report is not None and report[2] and not is_up:
            self._flaps.setdefault(key, Flaps()).went_down(now)
        if is_up and (flaps := self._flaps.get(key)) is not None:
            if flaps.is_held(now):
                return *key, False, "it failed too often: kept down until it is stable"
            if flaps.count(now) < 0.1:
                del self._flaps[key]
        return line
