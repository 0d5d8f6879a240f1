"""``python -m bench.plot``: the kernel's rates against the number of flows and against the frame's size, drawn."""

import argparse
import json
from pathlib import Path
from typing import Any


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Two plots side by side, from the parts kernel-flows and kernel-size; the file's ending says which format."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (flows, sizes) = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for axes, part, label in ((flows, "kernel-flows", "flows"), (sizes, "kernel-size", "frame, bytes")):
        points = [(int(r["name"].replace(",", "")), r["value"]) for r in results if r["part"] == part]
        axes.plot(*zip(*points, strict=True), marker="o")
        axes.set(xlabel=label)
        axes.grid(alpha=0.3)
    top = max(r["value"] for r in results if r["part"] in ("kernel-flows", "kernel-size"))
    flows.set(xscale="log", ylabel="Mpps", ylim=(0, 1.1 * top), title="64-byte frames, by flows")
    sizes.set(title="1000 flows, by frame size")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("bench/results.json"))
    parser.add_argument("--output", type=Path, default=Path("bench/results.png"))
    given = parser.parse_args()
    draw(json.loads(given.json.read_text())["results"], given.output)
    print(given.output)


if __name__ == "__main__":
    main()
