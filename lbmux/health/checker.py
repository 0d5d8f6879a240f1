"""From the results of probes to the state of a backend: rise and fall.  Pure; the prober feeds it.

    up    -- `fall` failures in a row -->  down
    down  -- `rise` successes in a row --> up

A backend that has flows already begins as up, whatever is not known of it yet.  A new one counts as down until its
first success or its `fall` failures: `begins_up`.
"""

from dataclasses import dataclass
from typing import Literal

ProbeState = Literal["up", "down"]
NOT_YET = "not probed yet"


@dataclass
class Checker:
    """One backend's health.  ``since``: the time of the last change, in seconds since the epoch."""

    rise: int
    fall: int
    since: float
    state: ProbeState = "up"
    reason: str = NOT_YET
    contrary: int = 0
    """Results in a row that speak against the state."""
    begins_up: bool = True
    """Whether it counts as up before it was probed."""

    @property
    def was_probed(self) -> bool:
        return self.reason != NOT_YET

    @property
    def is_down(self) -> bool:
        return self.state == "down" or not (self.was_probed or self.begins_up)

    def heard(self, healthy: bool, reason: str, now: float) -> bool:
        """Take a probe's result; whether the state changed, or what the backend counts as."""
        before = self.state, self.is_down
        self._take(healthy, reason, now)
        return (self.state, self.is_down) != before

    def _take(self, healthy: bool, reason: str, now: float) -> None:
        if healthy == (self.state == "up"):
            self.contrary, self.reason = 0, reason
            return
        self.contrary += 1
        if self.contrary < (self.rise if healthy else self.fall):
            return
        self.state, self.reason, self.since, self.contrary = "up" if healthy else "down", reason, now, 0
