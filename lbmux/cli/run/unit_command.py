"""`lbmux unit`: prints a systemd unit for this installation."""

import shutil
import sys
from importlib.resources import files

import click

HIDDEN = ("/home/", "/root/", "/run/user/")
"""The directories that ProtectHome= hides (systemd.exec(5))."""


@click.command(name="unit")
@click.argument("program", type=click.Choice(["mux", "agent", "edge", "balancing-edge", "manager"]))
def command(program: str) -> None:
    """Print a systemd unit that runs PROGRAM of this installation; balancing-edge: `lbmux edge --balance`.

    For example: lbmux unit mux > /etc/systemd/system/lbmux-mux.service
    """
    text = files("lbmux").joinpath("units", f"lbmux-{program}.service").read_text()
    installed = shutil.which(sys.argv[0]) or shutil.which("lbmux") or "lbmux"
    if installed.startswith(HIDDEN):
        click.echo(f"{installed}: the unit hides home directories (ProtectHome=): install it elsewhere", err=True)
    click.echo(text.replace("@lbmux@", installed), nl=False)
