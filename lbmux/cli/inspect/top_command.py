"""`lbmux top`: shows rates of services, backends and flows, live."""

import json
import sys
from pathlib import Path
from typing import TextIO

import click

from lbmux.cli import options
from lbmux.cli.where import Where, where

ALL_LINES = 1 << 16
"""Height for output that is printed once: it is not cut."""


@click.command(name="top")
@where(repeated=True, default="the mux on this machine, else the agent")
@click.option(
    "--interval", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="Seconds between readings."
)
@click.option("-w", "--write", type=click.File("w"), help="Record the readings as JSON Lines; --read replays them.")
@click.option("-r", "--read", type=options.PATH, help="Replay a recording instead of asking a mux.")
@click.option("--once", is_flag=True, help="Print the services once and exit.")
@options.json_of("Print JSON Lines, one per reading.")
def command(
    where: Where, interval: float, write: TextIO | None, read: Path | None, once: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Show packets, bits, new flows and drops per second, of services, their backends, and their flows.

    The rates of several muxes, or through a manager of all muxes, are added up.

    For flows, top shows the state and the idle time, but no rates: counters for each flow would cost every packet one
    more cache line.

    \b
    arrows, j, k  select           enter  open      backspace  back
    s  sort by the next column     r  reverse       p  pause       q  quit
    """
    from rich.console import Console

    from lbmux.errors import LbmuxError
    from lbmux.tools.top import top_loop
    from lbmux.tools.top.screen import render

    source = top_loop.replayed(read) if read else top_loop.live(where.all(), write)
    if once or as_json:
        console = Console()
        for view in top_loop.views(source, 0.0 if read else interval):
            if as_json:
                click.echo(json.dumps(top_loop.document(view)))
            else:
                console.print(render(view, ALL_LINES))
            if once:
                return
        return
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise LbmuxError("top needs a terminal; without one, use --once or --json")
    top_loop.watch(source, interval, sys.stdin.fileno())
