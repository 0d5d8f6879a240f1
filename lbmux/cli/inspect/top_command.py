"""`lbmux top`: what muxes do, second by second."""

import json
import sys
from pathlib import Path
from typing import TextIO

import click

from lbmux.cli import options

LINES = 1 << 16
"""Of what is printed once: all."""


@click.command(name="top")
@click.option(
    "--control", "controls", type=options.PATH, multiple=True, envvar="LBMUX_CONTROL", show_envvar=True,
    help="Control socket of a mux; as often as there are muxes, which are summed. "
    "[default: of the mux that runs on this machine, else of the agent]",
)  # fmt: skip
@click.option(
    "--interval", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="Seconds between readings."
)
@click.option("-w", "--write", type=click.File("w"), help="Record the readings, as JSON Lines, for --read.")
@click.option("-r", "--read", type=options.PATH, help="Replay a recording instead of asking a mux.")
@click.option("--once", is_flag=True, help="Print the services once, and end.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON Lines, one a reading.")
def command(
    controls: tuple[Path, ...], interval: float, write: TextIO | None, read: Path | None, once: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Show services, then the backends of one, then the flows of one: packets, bits, new flows, drops, per second.

    Flows have no rates: an entry of the flow table is 32 bytes, four of them two cache lines, and counters would be a
    third that every packet fetches.  Of each flow there is its state, and how long it has been idle.

    \b
    arrows, j, k  choose      enter  into it       backspace  back
    s  sort by the next column     r  reverse      p  pause       q  quit
    """
    from rich.console import Console

    from lbmux.api.control_socket import meant_path
    from lbmux.errors import LbmuxError
    from lbmux.tools.top import top_loop
    from lbmux.tools.top.screen import render

    source = top_loop.replayed(read) if read else top_loop.live(controls or (meant_path(None),), write)
    if once or as_json:
        console = Console()
        for view in top_loop.views(source, 0.0 if read else interval):
            if as_json:
                click.echo(json.dumps(top_loop.document(view)))
            else:
                console.print(render(view, LINES))
            if once:
                return
        return
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise LbmuxError("top needs a terminal: --once or --json prints without one")
    top_loop.watch(source, interval, sys.stdin.fileno())
