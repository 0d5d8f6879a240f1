"""`lbmux withdraw` and `lbmux announce`: withdraw and announce the VIPs of a running mux, which forwards meanwhile."""

import json

import click

from lbmux.cli import options
from lbmux.cli.where import Where, where


def _command(name: str, held: bool, text: str) -> click.Command:
    @click.command(name=name, help=text)
    @where(default="the mux on this machine")
    @options.json
    def command(where: Where, as_json: bool) -> None:
        from lbmux.api.control_client import ControlClient
        from lbmux.api.requests import HoldRoutes

        prefixes = ControlClient(where.one("mux")).ask(HoldRoutes(held)).prefixes
        if as_json:
            click.echo(json.dumps({"version": 1, "held": held, "prefixes": prefixes}))
            return
        click.echo(f"announced: {' '.join(prefixes) or 'nothing'}")

    return command


withdraw = _command(
    "withdraw", True,
    "Withdraw all VIPs of a mux or an edge. A mux still forwards packets that arrive. `lbmux announce` or a restart"
    " announces the VIPs again.",
)  # fmt: skip
announce = _command("announce", False, "Announce the VIPs of a mux or an edge again, after `lbmux withdraw`.")
