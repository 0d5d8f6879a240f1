"""Maglev's figure 11 (NSDI 2016, section 5.3): how evenly a table's slots are spread over equal backends.

A method's over-provisioning is the most slots of a backend over the mean, less one: the capacity that backends need
beyond the mean.  The paper: at 65537 slots 29.7 % for Karger and 49.5 % for rendezvous, at 655373 slots 10.3 % and
12.3 %, and almost 0 for Maglev.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lbmux.plurals import counted
from lbmux.tables import maglev
from lbmux.tools.simulate.hash_tables import karger_by_views, karger_ring, rendezvous
from lbmux.tools.simulate.simulation_result import Line, Panel, Row, SimulationResult, Spread, Tell, no_progress

SIZES = (65537, 655373)
PAPER_PERCENT = {
    ("karger", 65537): 29.7, ("rendezvous", 65537): 49.5, ("karger", 655373): 10.3, ("rendezvous", 655373): 12.3,
}  # fmt: skip
"""Over-provisioning as the paper states it, for 1000 backends."""


@dataclass(frozen=True)
class Balance:
    """``sizes``: primes.  ``views``: points of each backend, for Karger."""

    backends: int = 1000
    sizes: Sequence[int] = SIZES
    views: int = 1000
    repeats: int = 10
    seed: int = 1


def balance(settings: Balance, tell: Tell = no_progress) -> SimulationResult:
    """Build the tables of each method with new hashes for each repeat."""
    methods = _methods(settings)
    rows: list[Row] = []
    shares: dict[tuple[str, int], list[Spread]] = {}
    steps = len(settings.sizes) * len(methods) * settings.repeats
    for size in settings.sizes:
        for method, build in methods.items():
            rngs = np.random.default_rng([settings.seed, size]).spawn(settings.repeats)
            counts = []
            for rng in rngs:
                counts.append(np.bincount(build(rng, size), minlength=settings.backends))
                tell(((len(rows) * settings.repeats) + len(counts)) / steps)
            over, low = (
                Spread.of([float(100 * edge(one) / one.mean()) - back for one in counts])
                for edge, back in ((np.max, 100.0), (np.min, 0.0))
            )
            shares[method, size] = [over, low]
            paper = PAPER_PERCENT.get((method, size)) if settings.backends == 1000 else None
            rows.append(
                {
                    "method": method, "size_slots": size, "over_provisioning_percent": over,
                    "paper_percent": paper, "least_percent_of_mean": low,
                }
            )  # fmt: skip
    title = f"Load balancing of {settings.backends} equal backends"
    return SimulationResult(
        "balance", title, vars(settings) | {"sizes": [*settings.sizes]}, rows, [_panel(settings, shares)]
    )


def _methods(settings: Balance) -> dict[str, Callable[[Generator, int], NDArray[np.integer]]]:
    return {
        "maglev": lambda rng, size: _maglev(rng, settings.backends, size),
        "karger": lambda rng, size: karger_by_views(rng, settings.backends, size, settings.views),
        "karger ring": lambda rng, size: karger_ring(rng, settings.backends, size, settings.views),
        "rendezvous": lambda rng, size: rendezvous(rng, settings.backends, size),
    }


def _maglev(rng: Generator, backends: int, size: int) -> NDArray[np.uint16]:
    names = [f"{number:x}" for number in rng.integers(0, 1 << 62, backends)]
    return maglev.build(names, [1] * backends, size)


def _panel(settings: Balance, shares: dict[tuple[str, int], list[Spread]]) -> Panel:
    methods = list(dict.fromkeys(method for method, _ in shares))
    lines = [Line.of(f"{size} slots", [(m, shares[m, size][0]) for m in methods]) for size in settings.sizes]
    for size in settings.sizes if settings.backends == 1000 else ():
        known = [(method, PAPER_PERCENT[method, size]) for method in methods if (method, size) in PAPER_PERCENT]
        if known:
            lines.append(Line(f"paper, {size} slots", [method for method, _ in known], [value for _, value in known]))
    title = f"Over-provisioning, {settings.backends} backends, {counted(settings.repeats, 'repeat')}"
    return Panel(title, "method", "most slots of a backend over the mean, less one (%)", lines, "bars")
