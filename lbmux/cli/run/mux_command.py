"""`lbmux mux`: runs a mux."""

from pathlib import Path
from typing import Any

import click

from lbmux.addresses import Address
from lbmux.cli import options
from lbmux.cli.run import bgp_options


@click.command(name="mux")
@options.node
@options.interface
@click.option(
    "--address", "addresses", type=options.ADDRESS, multiple=True, envvar="LBMUX_ADDRESS", show_envvar=True,
    help="Source address of outer headers, one per family. [default: the interface's first addresses]",
)  # fmt: skip
@click.option(
    "--driver", type=click.Choice(["auto", "packet", "xdp"]), default="auto", show_default=True,
    envvar="LBMUX_DRIVER", show_envvar=True, help="How frames are read and sent.",
)  # fmt: skip
@options.xdp_mode
@click.option("--detach-on-exit", is_flag=True, help="Detach the kernel programs at exit; else they keep forwarding.")
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
    driver: str,
    xdp_mode: str,
    detach_on_exit: bool,
    control: Path | None,
    metrics: str | None,
    health_token: Path | None,
    **bgp: Any,
) -> None:
    """Run a mux on one interface: forward packets of VIPs to backends, through tunnels.

    SIGHUP reloads the configuration; SIGTERM stops the mux after it has sent the packets it has read.
    """
    from lbmux.daemons.mux_daemon import Options, serve
    from lbmux.daemons.process import run

    more = bgp_options.settings(bgp) | {"metrics": metrics, "health_token": health_token}
    settings = Options(
        **options.source("mux", config, managers, state),
        interface=interface,
        addresses=addresses,
        control=control,
        driver=driver,
        detach_on_exit=detach_on_exit,
        xdp_mode=xdp_mode,
        **more,
    )
    run(serve(settings))
