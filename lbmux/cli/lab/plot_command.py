"""`lbmux plot`: plots results, or formats them as a table."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from lbmux.cli import options

ENDINGS = (".png", ".svg", ".md")
Lines = list[dict[str, Any]]


@click.command(name="plot")
@click.argument("files", metavar="FILE...", type=options.PATH, nargs=-1, required=True)
@click.option(
    "-o", "--output", type=options.PATH,
    help="Output file: .png or .svg, or .md for a table of `lab run`. [default for one FILE: its name with .png]",
)  # fmt: skip
@click.option("--history", is_flag=True, help="Plot results of `make bench` over the FILEs, one point for each.")
def command(files: tuple[Path, ...], output: Path | None, history: bool) -> None:
    """Plot results of `make bench`, `lbmux lab run -w` or `lbmux simulate -j`; several FILEs are shown side by side.

    Plots need matplotlib (pip install 'lbmux[plots]').
    """
    from lbmux.errors import LbmuxError
    from lbmux.tools.results import KINDS

    if output is None and len(files) > 1:
        raise click.UsageError("several files need --output")
    path = output or files[0].with_suffix(".png")
    if path.suffix not in ENDINGS:
        raise click.BadParameter(f"{path} should end in {', '.join(ENDINGS)}", param_hint="--output")
    kind, runs = _runs(files)
    if path.suffix == ".md" and kind != "outcomes":
        raise LbmuxError(f"{path}: a table needs results of `lbmux lab run -w`")
    if history and kind != "results":
        raise LbmuxError(f"{files[0]}: --history needs results of the bench, not of {KINDS[kind]}")
    try:
        with drawing(path):
            _draw(kind, runs, path, history)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise LbmuxError(f"{', '.join(map(str, files))}: not the format of {KINDS[kind]}: {error!r}") from error
    click.echo(path)


@contextmanager
def drawing(path: Path) -> Iterator[None]:
    """Raise LbmuxError if matplotlib is not installed or the plot cannot be written to ``path``."""
    from lbmux.errors import LbmuxError

    try:
        yield
    except ImportError as error:
        raise LbmuxError(f"{error.name} is not installed: pip install 'lbmux[plots]'") from error
    except OSError as error:
        raise LbmuxError(f"{path}: {error.strerror}") from error


def _runs(files: Sequence[Path]) -> tuple[str, dict[str, Lines]]:
    """Return the kind of all files, and the lines of each by its short name."""
    from lbmux.errors import LbmuxError
    from lbmux.tools.results import KINDS, kind_of, read_result

    stems = [path.stem for path in files]
    runs: dict[str, Lines] = {}
    first_kind = ""
    for path in files:
        result = read_result(path)
        kind = kind_of(result) or ""
        if not result[kind]:
            raise LbmuxError(f"{path}: no {kind}")
        if first_kind and kind != first_kind:
            raise LbmuxError(f"{path} is from {KINDS[kind]}, {files[0]} from {KINDS[first_kind]}: plot them separately")
        first_kind = kind
        runs[path.stem if stems.count(path.stem) == 1 else str(path)] = result[kind]
    return first_kind, runs


def _draw(kind: str, runs: dict[str, Lines], path: Path, history: bool) -> None:
    if kind == "results":
        from lbmux.tools import bench_plot

        (bench_plot.draw_history if history else bench_plot.draw)(runs, path)
        return
    if kind == "panels":
        from lbmux.tools.simulate.simulation_plot import draw as draw_simulation

        draw_simulation(runs, path)
        return
    if len(runs) > 1:
        runs = {
            name: [line | {"scenario": f"{line['scenario']}, {name}"} for line in lines] for name, lines in runs.items()
        }
    outcomes = [line for lines in runs.values() for line in lines]
    if path.suffix == ".md":
        from lbmux.lab.scoreboard.scoreboard_report import markdown

        path.write_text(markdown(outcomes))
        return
    from lbmux.lab.scoreboard.scoreboard_plot import draw

    draw(outcomes, path)
