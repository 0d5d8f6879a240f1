"""The scoreboard: scenarios against events, as a table, as JSON, as a plot."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from lbmux.lab.board.experiment import Load, Outcome
from lbmux.lab.board.run import Failure

LATE_MS = 50.0
LEGEND = "broken (of them of what was hit) / longest stall in ms / new ones refused / ms until normal"


def document(outcomes: Sequence[Outcome], failures: Sequence[Failure], load: Load, seconds: float) -> dict[str, Any]:
    """What is written and what the page reads."""
    return {
        "version": 1,
        "load": asdict(load),
        "seconds": round(seconds, 1),
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "failures": [dict(zip(("scenario", "event", "why"), failure, strict=True)) for failure in failures],
    }


def cell(outcome: Outcome) -> str:
    own = f" ({outcome.own})" if outcome.own else ""
    return f"{outcome.broken}{own} / {outcome.stall_ms:.0f} / {outcome.refused} / {outcome.normal_ms:.0f}"


def _colour(outcome: Outcome) -> str:
    if outcome.broken > outcome.own:
        return "red"
    return "yellow" if outcome.broken or outcome.refused or outcome.stall_ms > LATE_MS else "green"


def print_table(outcomes: Sequence[Outcome], failures: Sequence[Failure], load: Load, seconds: float) -> None:
    table = Table(title=f"{load.connections} long connections; {LEGEND}; {seconds:.0f} s")
    scenarios = list(dict.fromkeys([one.scenario for one in outcomes] + [one[0] for one in failures]))
    table.add_column("event")
    for name in scenarios:
        table.add_column(name)
    found = {(one.event, one.scenario): f"[{_colour(one)}]{cell(one)}" for one in outcomes}
    found |= {(event, scenario): "[red]not measured" for scenario, event, _ in failures}
    for event in dict.fromkeys([one.event for one in outcomes] + [one[1] for one in failures]):
        table.add_row(event, *(found.get((event, scenario), "") for scenario in scenarios))
    console = Console()
    console.print(table)
    for scenario, event, why in failures:
        console.print(f"{scenario}: {event}: {why}", markup=False)
