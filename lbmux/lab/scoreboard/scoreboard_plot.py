"""Plot the scoreboard: connections broken and the longest stall by event, with one colour per scenario."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def draw(outcomes: Sequence[dict[str, Any]], path: Path) -> None:
    """``outcomes``: as `lbmux lab run` writes them.  The file's extension selects the format."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    events = list(dict.fromkeys(one["event"] for one in outcomes))
    scenarios = list(dict.fromkeys(one["scenario"] for one in outcomes))
    height = 2 + 0.13 * len(events) * len(scenarios)
    figure, axes = pyplot.subplots(1, 2, figsize=(12, height), sharey=True, layout="constrained")
    thick = 0.8 / len(scenarios)
    for number, scenario in enumerate(scenarios):
        of_it = {one["event"]: one for one in outcomes if one["scenario"] == scenario}
        known = [(at, of_it[event]) for at, event in enumerate(events) if event in of_it]
        positions = [at + (number - (len(scenarios) - 1) / 2) * thick for at, _ in known]
        axes[0].barh(positions, [one["broken"] for _, one in known], thick, label=scenario)
        axes[1].barh(positions, [one["stall_ms"] for _, one in known], thick)
    axes[0].set_yticks(range(len(events)), events)
    axes[0].invert_yaxis()
    axes[0].set_xlabel(f"connections broken, of {outcomes[0]['connections']}")
    axes[1].set_xlabel("longest stall of the others, ms")
    axes[1].set_xscale("symlog", linthresh=10)
    axes[0].legend()
    for one in axes:
        one.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
