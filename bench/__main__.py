"""``python -m bench [PART...] [--json FILE]``: runs benchmarks, prints a table, writes JSON."""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

from bench.report import Result, print_table, write_json

PARTS = (
    "startup", "memory", "maglev", "replay", "live", "latency", "reload", "loading", "restart", "kernel", "flow_state",
    "scaling", "instructions", "end_to_end", "rings", "health", "trace", "scrape", "show", "page", "help",
    "amplification", "saturation", "steering", "manager", "wan", "first_byte",
)  # fmt: skip

# Measure programs as they run when installed, with cached bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default all")
    parser.add_argument("--json", type=Path, default=Path("bench/results.json"))
    given = parser.parse_args()
    unknown = set(given.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    results: list[Result] = []
    for part in given.parts or PARTS:
        print(f"{part} …", file=sys.stderr, flush=True)
        results += importlib.import_module(f"bench.{part}").run()
    print_table(results)
    write_json(given.json, results)
    if "kernel" in (given.parts or PARTS):
        _plot(given.json)


def _plot(path: Path) -> None:
    """Write a plot beside the JSON file, if matplotlib is installed."""
    from lbmux.tools.bench_plot import draw

    try:
        draw({path.stem: json.loads(path.read_text())["results"]}, path.with_suffix(".png"))
    except ImportError:
        print("no plot: pip install 'lbmux[plots]'", file=sys.stderr)


if __name__ == "__main__":
    main()
