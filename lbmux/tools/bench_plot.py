"""Draws results of the bench: the kernel's rates as curves if they were measured, else each result and its reference.

If no result has a reference, the values are drawn, with a diagram for each part and unit.
Several runs are drawn side by side, one colour each, or as a history: one line for each result, one point for each run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CURVES = ("kernel-flows", "kernel-size")
Results = Sequence[dict[str, Any]]


def draw(runs: Mapping[str, Results], path: Path) -> None:
    """``runs``: by name, each as `make bench` writes it; the file's ending says which format.

    Raise ValueError if there is nothing to draw.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    has_curves = all({one["part"] for one in results} >= set(CURVES) for results in runs.values())
    has_ratios = any(one.get("ratio") for results in runs.values() for one in results)
    figure = (_curves if has_curves else _ratios if has_ratios else _values)(runs, pyplot)
    if len(runs) > 1:
        figure.axes[0].legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def draw_history(runs: Mapping[str, Results], path: Path) -> None:
    """Draw each part's ratios over the runs, in their order; ``runs`` and ``path`` are as for `draw`.

    Raise ValueError if no part has a ratio.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    known = {name: _by_label(results) for name, results in runs.items()}
    labels = list(dict.fromkeys(label for ratios in known.values() for label in ratios))
    parts = list(dict.fromkeys(label.partition(":")[0] for label in labels))
    if not parts:
        raise ValueError("no result is a ratio to another measurement")
    height = 1.5 + sum(max(2.0, 0.2 * sum(label.startswith(f"{part}:") for label in labels)) for part in parts)
    figure, rows = pyplot.subplots(
        len(parts), 1, figsize=(11, height), sharex=True, squeeze=False, layout="constrained"
    )
    for axes, part in zip(rows[:, 0], parts, strict=True):
        for label in (label for label in labels if label.startswith(f"{part}:")):
            points = [(at, ratios[label]) for at, ratios in enumerate(known.values()) if label in ratios]
            axes.plot(*zip(*points, strict=True), marker="o", label=label.partition(": ")[2])
        axes.set(title=part, ylabel="ratio", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    rows[-1, 0].set_xticks(range(len(known)), list(known))
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _curves(runs: Mapping[str, Results], pyplot: Any) -> Any:
    """Mpps against the number of flows, and against the frame's size."""
    figure, (flows, sizes) = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axes, part, label in zip((flows, sizes), CURVES, ("flows", "frame, bytes"), strict=True):
        for name, results in runs.items():
            points = [(int(one["name"].replace(",", "")), one["value"]) for one in results if one["part"] == part]
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
        axes.set(xlabel=label)
        axes.grid(alpha=0.3)
    top = max(one["value"] for results in runs.values() for one in results if one["part"] in CURVES)
    flows.set(xscale="log", ylabel="Mpps", ylim=(0, 1.1 * top), title="64-byte frames, by flows")
    sizes.set(title="1000 flows, by frame size")
    return figure


def _ratios(runs: Mapping[str, Results], pyplot: Any) -> Any:
    """Each result that was measured against something in the same run."""
    known = {name: _by_label(results) for name, results in runs.items()}
    height = 1.5 + 0.3 * len({label for ratios in known.values() for label in ratios}) * len(runs)
    figure, axes = pyplot.subplots(figsize=(9, height), layout="constrained")
    _bars(axes, known, "ratio")
    return figure


def _values(runs: Mapping[str, Results], pyplot: Any) -> Any:
    """Each result in its unit."""
    kinds = list(dict.fromkeys((one["part"], one["unit"]) for results in runs.values() for one in results))
    known = [
        {
            name: {one["name"]: one["value"] for one in results if (one["part"], one["unit"]) == kind}
            for name, results in runs.items()
        }
        for kind in kinds
    ]
    heights = [1.0 + 0.3 * max(map(len, one.values())) * len(runs) for one in known]
    figure, rows = pyplot.subplots(
        len(kinds), 1, figsize=(9, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for axes, (part, unit), values in zip(rows[:, 0], kinds, known, strict=True):
        _bars(axes, values, unit)
        axes.set(title=part)
    return figure


def _bars(axes: Any, known: Mapping[str, Mapping[str, float]], unit: str) -> None:
    """Draw the values by label, side by side for several runs."""
    labels = list(dict.fromkeys(label for values in known.values() for label in values))
    thick = 0.8 / len(known)
    for number, (name, values) in enumerate(known.items()):
        positions = [labels.index(label) + (number - (len(known) - 1) / 2) * thick for label in values]
        axes.barh(positions, list(values.values()), thick, label=name)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set(xlabel=unit)
    axes.grid(axis="x", alpha=0.3)


def _by_label(results: Results) -> dict[str, float]:
    return {_label(one): one["ratio"] for one in results if one.get("ratio")}


def _label(one: dict[str, Any]) -> str:
    return f"{one['part']}: {one['name']} / {one['against']}"
