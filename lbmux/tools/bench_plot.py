"""Results of the bench drawn: the kernel's rates as curves where they were measured, else each result beside its
reference."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

CURVES = ("kernel-flows", "kernel-size")
Results = Sequence[dict[str, Any]]


def draw(results: Results, path: Path) -> None:
    """``results``: as `make bench` writes them; the file's ending says which format."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure = _curves(results, pyplot) if {one["part"] for one in results} >= set(CURVES) else _ratios(results, pyplot)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _curves(results: Results, pyplot: Any) -> Any:
    """Mpps against the number of flows, and against the frame's size."""
    figure, (flows, sizes) = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axes, part, label in zip((flows, sizes), CURVES, ("flows", "frame, bytes"), strict=True):
        points = [(int(one["name"].replace(",", "")), one["value"]) for one in results if one["part"] == part]
        axes.plot(*zip(*points, strict=True), marker="o")
        axes.set(xlabel=label)
        axes.grid(alpha=0.3)
    top = max(one["value"] for one in results if one["part"] in CURVES)
    flows.set(xscale="log", ylabel="Mpps", ylim=(0, 1.1 * top), title="64-byte frames, by flows")
    sizes.set(title="1000 flows, by frame size")
    return figure


def _ratios(results: Results, pyplot: Any) -> Any:
    """Each result that was measured against something in the same run."""
    known = [one for one in results if one.get("ratio")]
    figure, axes = pyplot.subplots(figsize=(9, 1.5 + 0.3 * len(known)), layout="constrained")
    axes.barh([f"{one['part']}: {one['name']} / {one['against']}" for one in known], [one["ratio"] for one in known])
    axes.invert_yaxis()
    axes.set(xlabel="ratio")
    axes.grid(axis="x", alpha=0.3)
    return figure
