"""`lbmux plot`: results as a picture."""

import json
from pathlib import Path
from typing import Any

import click

from lbmux.cli import options


@click.command(name="plot")
@click.argument("results", type=options.PATH)
@click.option(
    "-o", "--output", type=options.PATH, help="The picture: .png or .svg. [default: beside the results, .png]"
)
def command(results: Path, output: Path | None) -> None:
    """Draw RESULTS, a file of `make bench` or of `lbmux lab run -w`.  Needs matplotlib (pip install 'lbmux[plots]')."""
    from lbmux.errors import LbmuxError

    try:
        said: Any = json.loads(results.read_text())
    except (OSError, ValueError) as error:
        raise LbmuxError(f"{results}: {error}") from error
    path = output or results.with_suffix(".png")
    if path.suffix not in (".png", ".svg"):
        raise click.BadParameter(f"{path}: .png or .svg", param_hint="--output")
    try:
        if isinstance(said, dict) and said.get("outcomes"):
            from lbmux.lab.board.plot import draw

            draw(said["outcomes"], path)
        elif isinstance(said, dict) and said.get("results"):
            from lbmux.tools.bench_plot import draw as draw_bench

            draw_bench(said["results"], path)
        else:
            raise LbmuxError(f"{results}: neither results of the bench nor of `lbmux lab run -w`")
    except ImportError as error:
        raise LbmuxError(f"{error.name} is not installed: pip install 'lbmux[plots]'") from error
    click.echo(path)
