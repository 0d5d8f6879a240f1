"""`lbmux withdraw` and `lbmux announce`: withdraw and announce the VIPs of a running mux, which forwards meanwhile."""

import json
from typing import TYPE_CHECKING

import click

from lbmux.cli import options
from lbmux.cli.where import Where, where

if TYPE_CHECKING:
    from lbmux.api.requests import HoldRoutes


@click.command()
@where(default="the mux on this machine")
@options.json
def withdraw(where: Where, as_json: bool) -> None:
    """Withdraw all VIPs of a mux or an edge.

    A mux still forwards packets that arrive.  `lbmux announce` or a restart announces the VIPs again.
    """
    from lbmux.api.requests import HoldRoutes

    _ask(where, HoldRoutes(True), as_json)


@click.command()
@where(default="the mux on this machine")
@click.option(
    "--prepend", type=click.IntRange(0, 10), default=0, show_default=True,
    help="Prepend the own AS so many times: routers prefer shorter paths, such as those of other sites.",
)  # fmt: skip
@click.option(
    "--length",
    type=click.IntRange(8, 32),
    default=32,
    show_default=True,
    help="Length of the announced prefix around each IPv4 VIP: users go to the site with the longest one.",
)
@click.option(
    "--length6", type=click.IntRange(16, 128), default=128, show_default=True,
    help="Length of the announced prefix around each IPv6 VIP.",
)  # fmt: skip
@options.json
def announce(where: Where, prepend: int, length: int, length6: int, as_json: bool) -> None:
    """Announce the VIPs of a mux or an edge, perhaps less or more attractively than other sites do.

    It undoes `lbmux withdraw`, and an earlier `lbmux announce` with other options; so does a restart.
    """
    from lbmux.api.requests import HoldRoutes

    _ask(where, HoldRoutes(False, prepend, length, length6), as_json)


def _ask(where: Where, request: "HoldRoutes", as_json: bool) -> None:
    from lbmux.api.control_client import ControlClient

    prefixes = ControlClient(where.one("mux")).ask(request).prefixes
    if as_json:
        click.echo(json.dumps({"version": 1, "held": request.held, "prefixes": prefixes}))
        return
    click.echo(f"announced: {' '.join(prefixes) or 'nothing'}")
