"""Turns probe results into the state of a backend, by rise and fall.  Pure.

    up    -- `fall` failures in a row -->  down
    down  -- `rise` successes in a row --> up

A backend that may have flows starts as up (`begins_up`).  A new one counts as down until its first success.
"""

from dataclasses import dataclass
from typing import Literal

ProbeState = Literal["up", "down"]
NOT_YET = "not probed yet"


@dataclass
class Checker:
    """The health of one backend.  ``since``: the time of the last change, in seconds since the epoch."""

    rise: int
    fall: int
    since: float
    state: ProbeState = "up"
    reason: str = NOT_YET
    contrary: int = 0
    """Number of consecutive results that contradict the state."""
    begins_up: bool = True
    """Whether the backend counts as up before its first result."""

    @property
    def was_probed(self) -> bool:
        return self.reason != NOT_YET

    @property
    def is_down(self) -> bool:
        return self.state == "down" or not (self.was_probed or self.begins_up)

    def record(self, healthy: bool, reason: str, now: float) -> bool:
        """Record a probe result; return whether ``state`` or ``is_down`` changed."""
        before = self.state, self.is_down
        self._record(healthy, reason, now)
        return (self.state, self.is_down) != before

    def _record(self, healthy: bool, reason: str, now: float) -> None:
        if healthy == (self.state == "up"):
            self.contrary, self.reason = 0, reason
            return
        self.contrary += 1
        if self.contrary < (self.rise if healthy else self.fall):
            return
        self.state, self.reason, self.since, self.contrary = "up" if healthy else "down", reason, now, 0
