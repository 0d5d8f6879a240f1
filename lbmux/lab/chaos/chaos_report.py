"""The result of a chaos run, as a table on a terminal and as a JSON document."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from lbmux.lab.chaos.chaos import Chaos, Outcome
from lbmux.plurals import counted


def document(chaos: Chaos, outcome: Outcome) -> dict[str, Any]:
    shortest = outcome.shortest
    return {
        "version": 1,
        **asdict(chaos),
        "schedule": [asdict(step) for step in outcome.steps],
        "result": asdict(outcome.result),
        "shortest": None if shortest is None else [asdict(step) for step in shortest],
    }


def print_table(chaos: Chaos, outcome: Outcome) -> None:
    result = outcome.result
    table, console = Table(), Console()
    table.add_column("what")
    table.add_column("found", justify="right")
    rows = {
        "seconds": result.seconds,
        "events": result.steps,
        "long connections": result.connections,
        **{f"broken by {event}": count for event, count in sorted(result.own.items())},
        "longest stall (ms)": round(result.longest_stall_ms),
        "new connections answered": result.answered,
        "new connections refused": result.refused,
        **{f"most {name}": value for name, value in result.most.items()},
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    console.print(f"chaos in {chaos.scenario}, seed {chaos.seed}: {counted(len(result.violations), 'violation')}")
    console.print(table)
    for one in result.violations:
        console.print(f"{one.at_s:.1f} s: {one.what}", markup=False)
    if outcome.shortest is not None:
        console.print("The shortest list of events that fails in three of five reruns:")
        for step in outcome.shortest:
            console.print(str(step), markup=False)
