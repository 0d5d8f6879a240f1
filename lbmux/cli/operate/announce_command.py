"""`lbmux withdraw` and `lbmux announce`: withdraw and announce VIPs of running muxes and edges.

They go to the pool's manager where one is configured, and else to the daemon on this machine.
"""

import json
from typing import TYPE_CHECKING, Any

import click

from lbmux.cli import options
from lbmux.cli.where import Where, where

if TYPE_CHECKING:
    from lbmux.addresses import Address

VIP = click.argument("vip", type=options.ADDRESS, required=False)


def _managed(command: options.Decorated) -> options.Decorated:
    """Add the options of an override that the pool's manager stores."""
    command = click.option("--reason", default="", help="At the manager: the reason; `lbmux show overrides` lists it.")(
        command
    )
    return click.option(
        "--for", "for_s", type=options.DURATION, help="At the manager: how long it lasts. [default: until revoked]"
    )(command)


@click.command()
@VIP
@where(default="the mux on this machine")
@_managed
@options.json
def withdraw(where: Where, vip: "Address | None", as_json: bool, **managed: Any) -> None:
    """Withdraw VIP from all muxes and edges of the pool, or with --node from some, or without a manager from one.

    Without VIP, with --node or without a manager: all VIPs.  Muxes still forward packets that arrive.  `lbmux announce`
    announces the VIPs again.  The manager stores the withdrawal; without a manager it ends with a restart.
    """
    if where.is_pool and vip is None and not where.node:
        raise click.UsageError("give a VIP, or the nodes with --node")
    _order(where, "withdraw", vip, {"held": True}, managed, as_json)


@click.command()
@VIP
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
@_managed
@options.json
def announce(
    where: Where, vip: "Address | None", prepend: int, length: int, length6: int, as_json: bool, **managed: Any
) -> None:  # fmt: skip
    """Announce VIP, or all VIPs, perhaps less or more attractively than other sites do.

    It undoes `lbmux withdraw`, and an earlier `lbmux announce` with other options.  With a manager it concerns all
    muxes and edges of the pool, or with --node some.
    """
    announcement = {"prepended": prepend, "length": length, "length6": length6}
    _order(where, "announce", vip, announcement, managed, as_json)


def _order(
    where: Where, action: str, vip: "Address | None", announcement: dict[str, Any], managed: dict[str, Any],
    as_json: bool,
) -> None:  # fmt: skip
    if where.is_pool:
        from lbmux.cli.pool.route_orders import order_routes

        order_routes(where, as_json, action=action, vip=vip, announcement=announcement, **managed)
        return
    if managed["for_s"] is not None:
        raise click.UsageError("--for needs a manager here")
    _ask(where, vip, announcement, as_json)


def _ask(where: Where, vip: "Address | None", announcement: dict[str, Any], as_json: bool) -> None:
    from lbmux.api.control_client import ControlClient
    from lbmux.api.requests import HoldRoutes

    held = announcement.pop("held", False)
    request = HoldRoutes(held, **announcement, vip=None if vip is None else str(vip))
    prefixes = ControlClient(where.one("mux")).ask(request).prefixes
    if as_json:
        click.echo(json.dumps({"version": 1, "held": held, "prefixes": prefixes}))
        return
    click.echo(f"announced: {' '.join(prefixes) or 'nothing'}")
