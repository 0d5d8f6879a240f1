"""`lbmux detach`: takes the kernel's programs of a mux or an agent off an interface."""

import click

from lbmux.cli import options


@click.command(name="detach")
@options.interface
def command(interface: str) -> int:
    """Take the programs that a mux or an agent left on an interface off, and remove their tables."""
    from lbmux.frames.xdp import detach

    there = detach(interface)
    click.echo(f"{interface}: {'detached' if there else 'nothing of lbmux is attached'}")
    return 0
