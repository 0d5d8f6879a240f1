"""Draws results of simulations; several results stand side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WIDTH_INCHES, HEIGHT_INCHES = 6.4, 4.4
BARS = 0.8
"""Share of the axis that a group of bars takes."""
BAR_INCHES = 0.18
MANY_BARS = 24
"""With more bars in a panel, values stand upright."""
MOST_LABELLED = 12
"""A line with more points has no value beside each of them."""


def draw(runs: Mapping[str, Sequence[dict[str, Any]]], path: Path) -> None:
    """Draw the panels of each run, as `SimulationResult.document` has them.  The file's extension selects the format.

    Raise ValueError if there is nothing to draw.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    panels = [(name if len(runs) > 1 else "", panel) for name, run in runs.items() for panel in run]
    if not panels:
        raise ValueError("there are no panels")
    size = (len(panels) * max(WIDTH_INCHES, *(BAR_INCHES * _bar_count(panel) for _, panel in panels)), HEIGHT_INCHES)
    figure, every = pyplot.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    for axes, (name, panel) in zip(every[0], panels, strict=True):
        (_bars if panel["kind"] == "bars" else _lines)(axes, panel)
        title = f"{panel['title']}\n{name}" if name else panel["title"]
        axes.set(title=title, xlabel=panel["x"], ylabel=panel["y"])
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.grid(axis="y", alpha=0.3)
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _lines(axes: Any, panel: dict[str, Any]) -> None:
    for line in panel["lines"]:
        marker = "o" if len(line["x"]) <= MOST_LABELLED else None
        axes.plot(line["x"], line["y"], marker=marker, label=line["label"])
        if line["low"]:
            axes.fill_between(line["x"], line["low"], line["high"], alpha=0.2)
        if marker:
            for x, y in zip(line["x"], line["y"], strict=True):
                axes.annotate(f"{y:.3g}", (x, y), xytext=(0, 5), textcoords="offset points", fontsize="x-small")


def _bars(axes: Any, panel: dict[str, Any]) -> None:
    import matplotlib as mpl

    groups = list(dict.fromkeys(str(x) for line in panel["lines"] for x in line["x"]))
    thick = BARS / len(panel["lines"])
    upright = 90 if _bar_count(panel) > MANY_BARS else 0
    axes.set_prop_cycle(color=mpl.color_sequences["tab10" if len(panel["lines"]) <= 10 else "tab20"])
    for number, line in enumerate(panel["lines"]):
        offset = (number - (len(panel["lines"]) - 1) / 2) * thick
        places = [groups.index(str(x)) + offset for x in line["x"]]
        drawn = axes.bar(places, line["y"], thick, yerr=_range(line), capsize=3, label=line["label"])
        axes.bar_label(drawn, fmt="%.3g", fontsize="x-small", padding=2, rotation=upright)
    axes.set_xticks(range(len(groups)), groups)


def _bar_count(panel: dict[str, Any]) -> int:
    return sum(len(line["x"]) for line in panel["lines"]) if panel["kind"] == "bars" else 0


def _range(line: dict[str, Any]) -> list[list[float]] | None:
    """How far the range reaches below and above each value."""
    if not line["low"]:
        return None
    below = [y - low for y, low in zip(line["y"], line["low"], strict=True)]
    return [below, [high - y for y, high in zip(line["y"], line["high"], strict=True)]]
