"""Maglev's figure 12 (NSDI 2016, section 5.3): how many slots change when backends fail at the same time.

For each number of failures, random backends are removed and the table is built again; a slot has changed if its backend
has.  Slots of the failed backends have to change; the others do because a Maglev table is not minimal.  Karger and
rendezvous change the former only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lbmux.plurals import counted
from lbmux.tables import maglev
from lbmux.tools.simulate.balance import SIZES
from lbmux.tools.simulate.simulation_result import Line, Panel, Row, SimulationResult, Spread, Tell, no_progress

FAILURES = (1, 5, 10, 20, 30, 40, 50)


@dataclass(frozen=True)
class Resilience:
    """``failures``: numbers of backends that fail at the same time.  The paper repeats each 200 times."""

    backends: int = 1000
    sizes: Sequence[int] = SIZES
    failures: Sequence[int] = FAILURES
    repeats: int = 20
    seed: int = 1


def resilience(settings: Resilience, tell: Tell = no_progress) -> SimulationResult:
    """Build the tables before and after each failure, with new names and other failed backends for each repeat."""
    if not 0 < min(settings.failures) <= max(settings.failures) < settings.backends:
        raise ValueError(f"failures should be from 1 to {settings.backends - 1}, the number of backends less one")
    rows: list[Row] = []
    lines = []
    steps = len(settings.sizes) * settings.repeats
    for number, size in enumerate(settings.sizes):
        changed: list[list[float]] = []
        for rng in np.random.default_rng([settings.seed, size]).spawn(settings.repeats):
            changed.append(_changed(rng, settings, size))
            tell((number * settings.repeats + len(changed)) / steps)
        spreads = [Spread.of(values) for values in zip(*changed, strict=True)]
        for failed, spread in zip(settings.failures, spreads, strict=True):
            rows.append(
                {
                    "size_slots": size, "failed_backends": failed, "failed_percent": 100 * failed / settings.backends,
                    "changed_slots_percent": spread,
                }
            )  # fmt: skip
        failed_percent = [100 * failed / settings.backends for failed in settings.failures]
        lines.append(Line.of(f"{size} slots", list(zip(failed_percent, spreads, strict=True))))
    lines.append(Line("slots of the failed backends", failed_percent, failed_percent))
    title = f"Resilience of Maglev tables, {settings.backends} backends"
    panel = Panel(
        f"{title}, {counted(settings.repeats, 'repeat')}",
        "backends that fail at once (%)",
        "slots that change (%)",
        lines,
    )
    parameters = vars(settings) | {"sizes": [*settings.sizes], "failures": [*settings.failures]}
    return SimulationResult("resilience", title, parameters, rows, [panel])


def _changed(rng: Generator, settings: Resilience, size: int) -> list[float]:
    """Return the percentage of slots that change, for each number of failures."""
    names = [f"{number:x}" for number in rng.integers(0, 1 << 62, settings.backends)]
    before = maglev.build(names, [1] * settings.backends, size)
    return [100 * maglev.disruption(before, _without(rng, names, failed, size)) for failed in settings.failures]


def _without(rng: Generator, names: Sequence[str], failed: int, size: int) -> NDArray[np.uint16]:
    weights = np.ones(len(names), np.int64)
    weights[rng.choice(len(names), failed, replace=False)] = 0
    return maglev.build(names, weights.tolist(), size)
