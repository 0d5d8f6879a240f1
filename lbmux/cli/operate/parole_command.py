"""`lbmux parole`: let a flooded VIP back that a mux has made a black hole."""

import json

import click

from lbmux.cli import options
from lbmux.cli.operate import completion_names as names
from lbmux.cli.where import Where, where


@click.command()
@click.argument("vip", shell_complete=names.black_holes)
@where(default="the mux on this machine")
@options.json
def command(vip: str, where: Where, as_json: bool) -> None:
    """End the black hole of VIP at once, and forget its relapses.

    A mux with a stated `capacity_pps` drops all packets of a flooded VIP.  `lbmux show top-talkers` lists such VIPs.
    If the flood goes on, the VIP becomes a black hole again.
    """
    from lbmux.api.control_client import ControlClient
    from lbmux.api.requests import Parole

    answer = ControlClient(where.one("mux")).ask(Parole(vip))
    click.echo(json.dumps({"version": 1, "vip": answer.vip}) if as_json else f"VIP {answer.vip} is back")
