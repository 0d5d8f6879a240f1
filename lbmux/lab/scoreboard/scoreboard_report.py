"""The scoreboard: events by scenario, as a table on a terminal, as Markdown, and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from lbmux.lab.scoreboard.experiment import Load, Outcome
from lbmux.lab.scoreboard.scoreboard_events import events_of
from lbmux.lab.scoreboard.scoreboard_runner import Failure
from lbmux.plurals import counted

LATE_MS = 50.0
LEGEND = "broken (own server hit) / longest stall in ms / new connections refused / ms until normal"


def document(outcomes: Sequence[Outcome], failures: Sequence[Failure], load: Load, seconds: float) -> dict[str, Any]:
    """Return the result file's document, which the web page reads too."""
    return {
        "version": 1,
        "load": asdict(load),
        "seconds": round(seconds, 1),
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "failures": [dict(zip(("scenario", "event", "why"), failure, strict=True)) for failure in failures],
    }


def cell(outcome: Outcome) -> str:
    own = f" ({outcome.own})" if outcome.own else ""
    text = f"{outcome.broken}{own} / {outcome.stall_ms:.0f} / {outcome.refused} / {outcome.normal_ms:.0f}"
    if outcome.isolated_ms is not None:
        text += f"; isolated {outcome.isolated_ms:.0f}"
    return text if outcome.back_ms is None else f"{text}, back {outcome.back_ms:.0f}"


def _colour(outcome: Outcome) -> str:
    """Red: connections broke that could have survived, or a planned event was noticed."""
    is_planned = all(event.planned for event in events_of(outcome.event))
    if outcome.broken > outcome.own or (is_planned and outcome.stall_ms > LATE_MS):
        return "red"
    return "yellow" if outcome.broken or outcome.refused or outcome.stall_ms > LATE_MS else "green"


def _columns(outcomes: Sequence[Outcome], failures: Sequence[Failure]) -> tuple[list[str], list[str]]:
    """Return the names of scenarios and of events, in order of appearance."""
    scenarios = dict.fromkeys([one.scenario for one in outcomes] + [one[0] for one in failures])
    events = dict.fromkeys([one.event for one in outcomes] + [one[1] for one in failures])
    return list(scenarios), list(events)


def markdown(outcomes: Sequence[dict[str, Any]]) -> str:
    """Return the table as Markdown.  ``outcomes``: as `lbmux lab run` writes them."""
    read = [Outcome(**one) for one in outcomes]
    scenarios, events = _columns(read, [])
    cells = {(one.event, one.scenario): cell(one) for one in read}
    rows = [["event", *scenarios], ["---"] * (1 + len(scenarios))]
    rows += [[event, *(cells.get((event, scenario), "") for scenario in scenarios)] for event in events]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def print_table(outcomes: Sequence[Outcome], failures: Sequence[Failure], load: Load, seconds: float) -> None:
    table = Table(title=f"{counted(load.connections, 'long connection')}; {LEGEND}; {seconds:.0f} s")
    scenarios, events = _columns(outcomes, failures)
    table.add_column("event")
    for name in scenarios:
        table.add_column(name)
    cells = {(one.event, one.scenario): f"[{_colour(one)}]{cell(one)}" for one in outcomes}
    cells |= {(event, scenario): "[red]not measured" for scenario, event, _ in failures}
    for event in events:
        table.add_row(event, *(cells.get((event, scenario), "") for scenario in scenarios))
    console = Console()
    console.print(table)
    for scenario, event, why in failures:
        console.print(f"{scenario}: {event}: {why}", markup=False)
