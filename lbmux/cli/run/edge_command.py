"""`lbmux edge`: runs an edge, a host that announces its VIPs itself."""

from pathlib import Path
from typing import Any

import click

from lbmux.addresses import Address
from lbmux.cli import options
from lbmux.cli.run import bgp_options


@click.command(name="edge")
@options.node
@options.interface
@click.option(
    "--address", "addresses", type=options.ADDRESS, multiple=True, envvar="LBMUX_ADDRESS", show_envvar=True,
    help="Own address: backends with it as `dip` are on this host; may be repeated. [default: all addresses of this"
    " machine]",
)  # fmt: skip
@click.option(
    "--balance", is_flag=True, envvar="LBMUX_BALANCE", show_envvar=True,
    help="Be a mux for all edges too: send each packet to the edge that has its connection.",
)  # fmt: skip
@click.option(
    "--driver", type=click.Choice(["auto", "packet", "xdp"]), default="auto", show_default=True,
    envvar="LBMUX_DRIVER", show_envvar=True, help="With --balance: how frames are read and sent.",
)  # fmt: skip
@options.xdp_mode
@options.control
@options.metrics
@options.health_token
@bgp_options.bgp
def command(
    config: Path | None,
    managers: tuple[str, ...],
    state: Path,
    interface: str,
    addresses: tuple[Address, ...],
    balance: bool,
    driver: str,
    xdp_mode: str,
    control: Path | None,
    metrics: str | None,
    health_token: Path | None,
    **bgp: Any,
) -> None:
    """Run an edge: the host announces a VIP itself, without a mux, while its own backends of the VIP are healthy.

    With --balance it announces the VIPs always, and forwards each packet to the edge that has its connection.

    The VIP must be an address of this host.  SIGHUP reloads the configuration; SIGTERM withdraws the VIPs and stops the
    edge.
    """
    from lbmux.daemons import balancing_edge, edge_daemon
    from lbmux.daemons.process import run

    more = bgp_options.settings(bgp)
    if more["bgp"] is None:
        raise click.UsageError("an edge needs a router to announce its VIPs to: --bgp-peer")
    more |= options.source("edge", config, managers, state)
    more |= {"interface": interface, "addresses": addresses, "control": control}
    mux: dict[str, Any] = {"driver": driver, "xdp_mode": xdp_mode, "metrics": metrics, "health_token": health_token}
    if not balance and any(value not in (None, "auto") for value in mux.values()):
        raise click.UsageError("without --balance an edge forwards no packets: no driver, no metrics, no health token")
    if balance:
        run(balancing_edge.serve(balancing_edge.Options(**mux, **more)))
    else:
        run(edge_daemon.serve(edge_daemon.Options(**more)))
