"""Why each backend of a service is in its state: by health checks, by command, or by the configuration.

The mux's tables are joined with its health list (`lbmux show health`), which also has the backends that are not in the
tables, and the reasons.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lbmux.api.answers import BackendHealth
from lbmux.api.status_tables import STATES
from lbmux.config.models import Service
from lbmux.datapath.tables import DRAINING, GONE, UP
from lbmux.tables.snapshot import Snapshot

MOST_NAMED = 5
PROBES, BY_COMMAND, NO_WEIGHT, NOT_WANTED = "probes", "by command", "weight 0", "not wanted"
HINTS = {
    PROBES: "find out why health checks of {all} fail ({reason}): check server, agent and path",
    BY_COMMAND: "run `lbmux enable {first}`: taken out by command: {all}",
    NO_WEIGHT: "give {all} a weight above 0, then run `lbmux reload`",
    NOT_WANTED: "add a backend in the file or with `lbmux add`; kept only for existing flows: {all}",
}
"""Hints by the reason why a backend takes no new flows."""


@dataclass(frozen=True)
class BackendState:
    """``state`` is that of `lbmux show health`.  ``serves``: whether the backend gets new flows."""

    name: str
    state: str
    reason: str
    since: str | None
    serves: bool

    @property
    def cause(self) -> str:
        """Why it takes no new flows, a key of HINTS."""
        if self.state in ("removing", "removed"):
            return NOT_WANTED
        return self.reason if self.reason in HINTS else PROBES

    def __str__(self) -> str:
        since = f", since {self.since}" if self.since else ""
        return f"{self.name} is {self.state}: {self.reason or 'no reason given'}{since}"


def states_of(service: Service, snapshot: Snapshot, health: Sequence[BackendHealth]) -> list[BackendState]:
    """Return the states of a service's backends. ``health``: the mux's health list; empty for a configuration."""
    lines = {line.backend: line for line in health if line.service == service.name}
    states = []
    for name in dict.fromkeys([*lines, *(backend.name for backend in service.backends)]):
        row = snapshot.rows.get((service.name, name))
        in_table = GONE if row is None else int(snapshot.tables.backends[row]["state"])
        line = lines.get(name)
        state, reason, since = (line.state, line.reason, line.since) if line else (STATES[in_table], "", None)
        if in_table == DRAINING and state in ("up", "draining") and reason != BY_COMMAND:
            state, reason = "draining", NO_WEIGHT
        states.append(BackendState(name, state, reason, since, in_table == UP))
    return states


def summary(states: Sequence[BackendState]) -> tuple[str, dict[str, Any]]:
    """Return a summary for people and as data: how many backends take new flows, and why the others do not."""
    serving = sum(state.serves for state in states)
    others = [str(state) for state in states if not state.serves or state.state != "up"]
    more = [f"and {len(others) - MOST_NAMED} more: `lbmux show health`"] if len(others) > MOST_NAMED else []
    text = "; ".join([f"{serving} of {len(states)} take new flows", *others[:MOST_NAMED], *more])
    return text, {"backends": [asdict(state) for state in states]}


def to_have_one(states: Sequence[BackendState]) -> str:
    """Return a hint for a service in which no backend takes new flows."""
    if not states:
        return "the service has no backend: add one, then run `lbmux reload`"
    by_cause: dict[str, list[BackendState]] = {}
    for state in states:
        by_cause.setdefault(state.cause, []).append(state)
    return "; or ".join(
        HINTS[cause].format(first=some[0].name, all=_names(some), reason=some[0].reason)
        for cause, some in by_cause.items()
    )


def _names(states: Sequence[BackendState]) -> str:
    more = f" and {len(states) - MOST_NAMED} more" if len(states) > MOST_NAMED else ""
    return ", ".join(state.name for state in states[:MOST_NAMED]) + more
