"""Benchmark results: a value, its unit, and its ratio to another measurement of the same run."""

import json
import platform
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lbmux import __version__

REPETITIONS = 3


@dataclass(frozen=True)
class Result:
    """One line of the table.  ``ratio`` is to ``against``, another measurement of the same run."""

    part: str
    name: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    goal: str = ""
    note: str = ""


def median(measure: Callable[[], float], repetitions: int = REPETITIONS) -> float:
    return statistics.median(measure() for _ in range(repetitions))


def machine() -> dict[str, Any]:
    """Return the machine, kernel and commit that produced the figures."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return {
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "cores": len(models),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "version": __version__,
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_json(path: Path, results: Sequence[Result]) -> None:
    document = {"machine": machine(), "results": [asdict(result) for result in results]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def print_table(results: Sequence[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    facts = machine()
    table = Table(title=f"{facts['processor']}, {facts['cores']} cores, Linux {facts['kernel']}, {facts['commit']}")
    for column in ("part", "what", "value", "unit", "ratio", "against", "goal", "note"):
        table.add_column(column, justify="right" if column in ("value", "ratio") else "left")
    for r in results:
        ratio = "" if r.ratio is None else f"{r.ratio:.3g}"
        table.add_row(r.part, r.name, f"{r.value:,.4g}", r.unit, ratio, r.against, r.goal, r.note)
    Console(width=160).print(table)
