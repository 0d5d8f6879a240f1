"""The scoreboard: scenarios against events, as a table, as JSON, as a plot."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
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


def plot(outcomes: Sequence[Outcome], path: Path) -> None:
    """Broken connections and stalls by event, a colour a scenario."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    events = list(dict.fromkeys(one.event for one in outcomes))
    scenarios = list(dict.fromkeys(one.scenario for one in outcomes))
    figure, axes = pyplot.subplots(1, 2, figsize=(13, 1.5 + 0.12 * len(events) * len(scenarios)), sharey=True)
    thick = 0.8 / len(scenarios)
    for number, scenario in enumerate(scenarios):
        of_it = {one.event: one for one in outcomes if one.scenario == scenario}
        places = [at + (number - (len(scenarios) - 1) / 2) * thick for at, event in enumerate(events) if event in of_it]
        known = [of_it[event] for event in events if event in of_it]
        axes[0].barh(places, [one.broken for one in known], thick, label=scenario)
        axes[1].barh(places, [one.stall_ms for one in known], thick)
    axes[0].set_yticks(range(len(events)), events)
    axes[0].invert_yaxis()
    axes[0].set_xlabel(f"connections broken, of {outcomes[0].connections}")
    axes[1].set_xlabel("longest stall of the others, ms")
    axes[1].set_xscale("symlog", linthresh=10)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path)
