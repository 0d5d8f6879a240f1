"""`lbmux top`: what a mux does, second by second."""

import json
import sys
from pathlib import Path
from typing import TextIO

import click

from lbmux.cli import options

LINES = 1 << 16
"""Of what is printed once: all."""


@click.command(name="top")
@options.control
@click.option(
    "--interval", type=click.FloatRange(0.1, 60), default=1.0, show_default=True, help="Seconds between readings."
)
@click.option("-w", "--write", type=click.File("w"), help="Record the readings, as JSON Lines.")
@click.option("-r", "--read", type=options.PATH, help="Replay a recording instead of asking a mux.")
@click.option("--once", is_flag=True, help="Print the services once, and end.")
@click.option("-j", "--json", "as_json", is_flag=True, help="With --once: print JSON.")
def command(
    control: Path | None, interval: float, write: TextIO | None, read: Path | None, once: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Show services, their backends, and those's flows, with packets, bits and new flows a second, and drops by reason.

    \b
    arrows, j, k  choose      enter  into it       backspace  back
    s  sort by the next column     r  reverse      p  pause       q  quit
    """
    from rich.console import Console

    from lbmux.control.control_socket import default_path
    from lbmux.errors import LbmuxError
    from lbmux.tools.top import run
    from lbmux.tools.top.screen import picture

    if as_json and not once:
        raise click.UsageError("--json goes with --once")
    source = run.replayed(read) if read else run.live(control or default_path("mux"), write)
    if once:
        view = run.once(source, 0.0 if read else interval)
        if as_json:
            click.echo(json.dumps(run.document(view)))
        else:
            Console().print(picture(view, LINES))
        return
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise LbmuxError("top needs a terminal: --once prints without one")
    run.watch(source, interval, sys.stdin.fileno())

