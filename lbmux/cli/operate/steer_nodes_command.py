"""`lbmux steer collect` and `announce`: round-trip times from a PoP's agents, and routes of its muxes by the map."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lbmux.cli import options
from lbmux.cli.operate.steer_command import command, manager_maps
from lbmux.cli.where import Where, where
from lbmux.plurals import counted

if TYPE_CHECKING:
    from lbmux.steering.steering_map import SteeringMap

__all__ = ["command"]


@command.command()
@click.argument("pop")
@click.argument("latency", type=options.PATH)
@where(repeated=True, default="the agent on this machine")
def collect(where: Where, pop: str, latency: Path) -> None:
    """Ask the agents of POP for their clients' round-trip times, and put them in LATENCY, a file of `lbmux steer`.

    Agents report prefixes and quantiles, never a client's address.  With --manager, --node names the agents.
    """
    from lbmux.api.control_client import ControlClient
    from lbmux.api.requests import GetRoundTrips
    from lbmux.steering.latency_file import update

    reports = [line for place in where.all("agent") for line in ControlClient(place).whole(GetRoundTrips()).round_trips]
    update(latency, pop, reports)
    prefixes = len({line.prefix for line in reports})
    connections = sum(line.samples for line in reports)
    click.echo(f"{latency}: {counted(prefixes, 'prefix', 'prefixes')} at {pop}, {counted(connections, 'connection')}")


@command.command()
@click.argument("pop")
@click.argument("map_", metavar="[MAP]", type=options.PATH, required=False)
@where(repeated=True, default="the mux on this machine")
def announce(where: Where, pop: str, map_: Path | None) -> None:
    """Have the muxes of POP follow MAP by BGP: they withdraw the VIPs if the map has no users for POP.

    If it has some, they announce them, with the path and the prefix lengths of the map.  `lbmux steer run` does this by
    itself for the muxes that steering.yaml names.  With --manager, --node names the muxes, and MAP is by
    default the pool's current one.
    """
    from lbmux.api.channel import target_name
    from lbmux.api.control_client import ControlClient
    from lbmux.cli.pool.route_orders import order_routes
    from lbmux.steering.steering_map import read
    from lbmux.tools.pop_nodes import hold_request, stored_order

    steering_map = read(map_) if map_ is not None else _pools_map(where)
    if pop not in steering_map.pops:
        raise click.UsageError(f"{map_ or 'the map'} has no PoP {pop!r}: use one of {', '.join(steering_map.pops)}")
    routes = steering_map.routes_of(pop)
    if where.is_pool:
        order_routes(where, as_json=False, **stored_order(routes), reason=f"steer announce {pop}")
        return
    for place in where.all("mux"):
        prefixes = ControlClient(place).ask(hold_request(routes)).prefixes
        click.echo(f"{target_name(place)}: announced: {' '.join(prefixes) or 'nothing'}")


def _pools_map(where: Where) -> "SteeringMap":
    """Return the current map of the pool's manager."""
    if not where.is_pool:
        raise click.UsageError("give MAP, or the manager that has it with --manager")
    current = manager_maps(*where.access).current()
    if current is None:
        raise click.UsageError("the manager has no map: make one with `lbmux steer apply`, or give MAP")
    return current[1]
