"""The schedule of a chaos run: which event happens when, to which mux and backend.  It follows from its seed.

Events are properly nested: of those in force, the one that began last is undone first.  So whatever an operator
changes is undone by the same muxes that it was done by.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

EVENTS = {
    "kill-mux": "mux", "stop-mux": "mux", "freeze-mux": "mux", "cut-link": "mux", "lose-mux": "mux",
    "kill-speaker": "mux", "disk-full": "disk", "step-clock": "clock",
    "kill-backend": "host", "kill-host": "host", "kill-agent": "host", "freeze-agent": "host",
    "drain-backend": "override", "add-backend": "file", "reweight-backend": "file", "reload": "file",
    "reseed-router": "router", "flood-ack": "flood",
}  # fmt: skip
"""What each event takes: two events in force never take the same, so one mux and one host stay whole."""
MOST_AT_ONCE = 3
BEGIN_S, LAST_S, GAP_S = 1.0, (0.5, 4.0), 1.5
"""The first event's time; the least and the most time between two changes; the most of a shortened schedule."""


@dataclass(frozen=True)
class Step:
    """An event from ``at_s`` to ``until_s`` (seconds), which acts on a mux and a backend."""

    at_s: float
    until_s: float
    event: str
    mux: str
    backend: str

    def __str__(self) -> str:
        return f"{self.at_s:6.1f} to {self.until_s:6.1f} s  {self.event:<18} {self.mux} {self.backend}"


@dataclass(frozen=True)
class Change:
    """One step's beginning (``happens``) or its end."""

    at_s: float
    step: Step
    happens: bool


def schedule(seed: int, seconds: float, muxes: Sequence[str], backends: Sequence[str]) -> list[Step]:
    """Return steps, the earliest first; all end within ``seconds``."""
    numbers = random.Random(seed)
    steps: list[Step] = []
    open_steps: list[Step] = []
    at = BEGIN_S
    while at < seconds - LAST_S[1] * (len(open_steps) + 1):
        if open_steps and (len(open_steps) == MOST_AT_ONCE or numbers.random() < 0.5):
            steps.append(replace(open_steps.pop(), until_s=round(at, 1)))
        else:
            taken = {EVENTS[step.event] for step in open_steps}
            event = numbers.choice([name for name, takes in EVENTS.items() if takes not in taken])
            open_steps.append(Step(round(at, 1), 0.0, event, numbers.choice(muxes), numbers.choice(backends)))
        at += numbers.uniform(*LAST_S)
    while open_steps:
        steps.append(replace(open_steps.pop(), until_s=round(at, 1)))
        at += LAST_S[0]
    return sorted(steps, key=lambda step: step.at_s)


def changes(steps: Sequence[Step]) -> list[Change]:
    """Return beginnings and ends in order of time."""
    found = [Change(step.at_s, step, True) for step in steps] + [Change(step.until_s, step, False) for step in steps]
    return sorted(found, key=lambda change: change.at_s)


def shortened(steps: Sequence[Step]) -> list[Step]:
    """Return the same steps in the same order with no more than ``GAP_S`` between two changes."""
    times: dict[float, float] = {}
    now, before = BEGIN_S, None
    for at in sorted({one.at_s for one in changes(steps)}):
        now += 0.0 if before is None else min(GAP_S, at - before)
        times[at], before = round(now, 1), at
    return [replace(step, at_s=times[step.at_s], until_s=times[step.until_s]) for step in steps]
