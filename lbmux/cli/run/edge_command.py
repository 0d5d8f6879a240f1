"""`lbmux edge`: a host announces its VIPs itself, without any mux."""

from pathlib import Path
from typing import Any

import click

from lbmux.addresses import Address
from lbmux.cli import options
from lbmux.cli.run import bgp_options


@click.command(name="edge")
@options.config
@options.interface
@click.option(
    "--address", "addresses", type=options.ADDRESS, multiple=True, envvar="LBMUX_ADDRESS", show_envvar=True,
    help="Backends of this `dip` are this host's; may be repeated. [default: all addresses of this machine]",
)  # fmt: skip
@options.control
@bgp_options.bgp
def command(config: Path, interface: str, addresses: tuple[Address, ...], control: Path | None, **bgp: Any) -> None:
    """Run an edge: no mux, the host itself announces a VIP while its own backends there are healthy.

    The VIP has to be an address of this host.  SIGHUP loads the configuration anew, SIGTERM withdraws and ends it.
    """
    from lbmux.daemons.edge_daemon import Options, serve
    from lbmux.daemons.process import run

    more = bgp_options.settings(bgp)
    if more["bgp"] is None:
        raise click.UsageError("an edge needs a router to announce its VIPs to: --bgp-peer")
    run(serve(Options(config, interface, **more, addresses=addresses, control=control)))
