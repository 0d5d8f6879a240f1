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
@options.control
@bgp_options.bgp
def command(
    config: Path | None,
    managers: tuple[str, ...],
    state: Path,
    interface: str,
    addresses: tuple[Address, ...],
    control: Path | None,
    **bgp: Any,
) -> None:
    """Run an edge: the host announces a VIP itself, without a mux, while its own backends of the VIP are healthy.

    The VIP must be an address of this host.  SIGHUP reloads the configuration; SIGTERM withdraws the VIPs and stops the
    edge.
    """
    from lbmux.daemons.edge_daemon import Options, serve
    from lbmux.daemons.process import run

    more = bgp_options.settings(bgp)
    if more["bgp"] is None:
        raise click.UsageError("an edge needs a router to announce its VIPs to: --bgp-peer")
    more |= options.source("edge", config, managers, state)
    run(serve(Options(interface=interface, **more, addresses=addresses, control=control)))
