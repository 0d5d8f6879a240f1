"""From the results of probes to the state of a backend: rise and fall.  Pure; the prober feeds it.

    up    -- `fall` failures in a row -->  down
    down  -- `rise` successes in a row --> up

A backend begins as up: a mux that has just started knows nothing against it.
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

    @property
    def was_probed(self) -> bool:
        return self.reason != NOT_YET

    def heard(self, healthy: bool, reason: str, now: float) -> bool:
        """Take a probe's result; whether the state changed."""
        if healthy == (self.state == "up"):
            self.contrary, self.reason = 0, reason
            return False
        self.contrary += 1
        if self.contrary < (self.rise if healthy else self.fall):
            return False
        self.state, self.reason, self.since, self.contrary = "up" if healthy else "down", reason, now, 0
        return True
