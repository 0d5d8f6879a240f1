"""`lbmux unit`: prints a systemd unit for this installation."""

import shutil
import sys
from importlib.resources import files

import click


@click.command(name="unit")
@click.argument("program", type=click.Choice(["mux", "agent", "manager"]))
def command(program: str) -> None:
    """Print a systemd unit that runs PROGRAM of this installation.

    For example: lbmux unit mux > /etc/systemd/system/lbmux-mux.service
    """
    text = files("lbmux").joinpath("units", f"lbmux-{program}.service").read_text()
    click.echo(text.replace("@lbmux@", shutil.which(sys.argv[0]) or shutil.which("lbmux") or "lbmux"), nl=False)
