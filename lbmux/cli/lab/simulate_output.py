"""The output of `lbmux simulate`: progress, the result as a table or JSON, and its plot."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from lbmux.tools.simulate.simulation_result import SimulationResult, Tell

    Simulation = Callable[[Tell], SimulationResult]

PROGRESS_STEP = 0.005
"""Progress is shown after this share of the work."""

FILE_COLUMNS = 200
"""Width of a table that does not go to a terminal."""


def run_with_progress(simulation: "Simulation") -> "SimulationResult":
    """Run a simulation, with a progress bar if standard error is a terminal."""
    import sys

    from lbmux.tools.simulate.simulation_result import no_progress

    if not sys.stderr.isatty():
        return simulation(no_progress)
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, shown = bar.add_task("", total=1.0), 0.0

        def tell(share: float) -> None:
            nonlocal shown
            if share - shown >= PROGRESS_STEP:
                shown = share
                bar.update(task, completed=share)

        return simulation(tell)


def plot(result: "SimulationResult", path: Path) -> None:
    """Draw the result; the file's suffix gives the format."""
    from lbmux.cli.lab.plot_command import drawing
    from lbmux.tools.simulate.simulation_plot import draw

    with drawing(path):
        draw({result.simulation: result.document()["panels"]}, path)


def show(result: "SimulationResult", as_json: bool) -> None:
    """Print the result as a table with its notes, or as JSON."""
    import json

    if as_json:
        click.echo(json.dumps(result.document(), indent=1))
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = FILE_COLUMNS
    if result.rows:
        console.print(_table(result))
    for note in result.notes or ([] if result.rows else ["no differences"]):
        console.print(note, soft_wrap=True)


def _table(result: "SimulationResult") -> "Table":
    from rich.table import Table

    columns = list(dict.fromkeys(name for row in result.rows for name in row))
    heads = (name.replace("percent", "%").replace("_", " ") for name in columns)
    table = Table(*heads, title=result.title, title_justify="left")
    for row in result.rows:
        table.add_row(*(_text(row.get(name)) for name in columns))
    for name, column in zip(columns, table.columns, strict=True):
        column.justify = "left" if isinstance(result.rows[0].get(name), str) else "right"
    return table


def _text(value: Any) -> str:
    from lbmux.tools.simulate.simulation_result import digits

    if value is None:
        return ""
    return digits(value) if isinstance(value, float) else str(value)
