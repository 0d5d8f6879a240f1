"""`lbmux steer collect` and `announce`: round-trip times from a PoP's agents, and routes of its muxes by the map."""

from pathlib import Path

import click

from lbmux.cli import options
from lbmux.cli.operate.steer_command import command
from lbmux.cli.where import Where, where
from lbmux.plurals import counted

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
@click.argument("map_", metavar="MAP", type=options.PATH)
@where(repeated=True, default="the mux on this machine")
def announce(where: Where, pop: str, map_: Path) -> None:
    """Have the muxes of POP follow MAP by BGP: they withdraw the VIPs if the map has no users for POP.

    If it has some, they announce them, as `lbmux announce` does.  With --manager, --node names the muxes.
    """
    from lbmux.api.channel import place_name
    from lbmux.api.control_client import ControlClient
    from lbmux.api.requests import HoldRoutes
    from lbmux.steering.steering_map import read

    steering_map = read(map_)
    if pop not in steering_map.pops:
        raise click.UsageError(f"{map_} has no PoP {pop!r}: use one of {', '.join(steering_map.pops)}")
    is_used = any(pop in weights for weights in steering_map.groups.values())
    for place in where.all("mux"):
        prefixes = ControlClient(place).ask(HoldRoutes(held=not is_used)).prefixes
        click.echo(f"{place_name(place)}: announced: {' '.join(prefixes) or 'nothing'}")
