"""`lbmux steer collect`: round-trip times from agents into the latency file."""

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
