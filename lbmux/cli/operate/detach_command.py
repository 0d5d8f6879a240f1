"""`lbmux detach`: detaches the kernel programs of a mux or an agent from an interface."""

import json

import click

from lbmux.cli import options


@click.command(name="detach")
@options.interface
@options.json
def command(interface: str, as_json: bool) -> int:
    """Detach lbmux programs from an interface, and remove their tables.

    This also removes the filter with which an agent in user space holds replies back after its exit.
    """
    from lbmux.daemons.reply_hold import release
    from lbmux.frames.xdp import detach

    was_attached = detach(interface)
    was_attached = release() or was_attached
    if as_json:
        click.echo(json.dumps({"version": 1, "interface": interface, "detached": was_attached}))
        return 0
    click.echo(f"{interface}: {'detached' if was_attached else 'no lbmux program is attached'}")
    return 0
