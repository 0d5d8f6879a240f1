"""`lbmux detach`: takes the kernel's programs of a mux or an agent off an interface."""

import json

import click

from lbmux.cli import options


@click.command(name="detach")
@options.interface
@options.json
def command(interface: str, as_json: bool) -> int:
    """Detach lbmux programs from an interface, and remove their tables.

    What an agent in user space left to hold replies back goes too.
    """
    from lbmux.daemons.leftovers import release
    from lbmux.frames.xdp import detach

    there = detach(interface)
    there = release() or there
    if as_json:
        click.echo(json.dumps({"version": 1, "interface": interface, "detached": there}))
        return 0
    click.echo(f"{interface}: {'detached' if there else 'nothing of lbmux is attached'}")
    return 0
