"""``python -m bench [PART...] [--json FILE]``: runs benchmarks, prints a table, writes JSON."""

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path

from bench.report import Result, print_table, write_json
from lbmux import __version__

RELEASE = ("memory", "live", "reload", "loading", "flow_state", "scaling", "instructions", "end_to_end")
"""The parts that stand for a release: ten minutes."""
OTHERS = (
    "startup", "maglev", "replay", "latency", "restart", "kernel", "rings", "health", "help", "trace", "scrape", "show",
    "page", "amplification", "saturation", "isolation", "steering", "manager", "wan", "first_byte", "gslb",
    "auto_weight", "af_xdp", "many_services",
)  # fmt: skip
LONG = ("matrix",)
"""Parts that run only if they are named."""
LAST, OF_RELEASE = Path("bench/results.json"), Path(f"bench/results/{__version__}.json")

# Measure programs as they run when installed, with cached bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    known = (*RELEASE, *OTHERS, *LONG)
    parser.add_argument(
        "parts", nargs="*", metavar="PART",
        help=f"of {', '.join(known)}; or 'all', all but {', '.join(LONG)}; default: {', '.join(RELEASE)}",
    )  # fmt: skip
    parser.add_argument(
        "--json", type=Path,
        help=f"default: {LAST}; without parts {OF_RELEASE}, which is committed with a release",
    )  # fmt: skip
    options = parser.parse_args()
    parts, path = options.parts or RELEASE, options.json or (LAST if options.parts else OF_RELEASE)
    if parts == ["all"]:
        parts = (*RELEASE, *OTHERS)
    unknown = sorted(set(parts) - set(known))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    print_table(_run(parts, path))
    if "kernel" in parts:
        _plot(path)


def _run(parts: list[str] | tuple[str, ...], path: Path) -> list[Result]:
    """Run the parts. Write the results after each, so that a later one that fails loses nothing.

    A part with a function ``so_far`` yields its results several times while it runs.
    """
    results: list[Result] = []
    for part in parts:
        print(f"{part} …", end=" ", file=sys.stderr, flush=True)
        start = time.monotonic()
        module, before = importlib.import_module(f"bench.{part}"), results
        for of_part in module.so_far() if hasattr(module, "so_far") else (module.run(),):
            results = before + of_part
            write_json(path, results)
        print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
    return results


def _plot(path: Path) -> None:
    """Write a plot beside the JSON file, if matplotlib is installed."""
    from lbmux.tools.bench_plot import draw

    try:
        draw({path.stem: json.loads(path.read_text())["results"]}, path.with_suffix(".png"))
    except ImportError:
        print("no plot: pip install 'lbmux[plots]'", file=sys.stderr)


if __name__ == "__main__":
    main()
