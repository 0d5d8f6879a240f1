"""`lbmux agent`: runs a host agent."""

from pathlib import Path

import click

from lbmux.addresses import Address
from lbmux.cli import options


@click.command(name="agent")
@options.config
@options.interface
@click.option(
    "--address", "addresses", type=options.ADDRESS, multiple=True, envvar="LBMUX_ADDRESS", show_envvar=True,
    help="Address that tunnels end at; may be repeated. [default: all of this machine]",
)  # fmt: skip
@click.option(
    "--mode", type=click.Choice(["nat", "local"]), default="nat", show_default=True,
    envvar="LBMUX_MODE", show_envvar=True,
    help="nat: VIP to DIP and back; local: the VIP is on an interface of this host.",
)  # fmt: skip
@click.option(
    "--mux", "muxes", type=options.ADDRESS, multiple=True,
    help="Outer source to accept, besides the configuration's `muxes`; may be repeated.",
)  # fmt: skip
@click.option(
    "--driver", type=click.Choice(["auto", "tun", "xdp"]), default="auto", show_default=True,
    envvar="LBMUX_DRIVER", show_envvar=True, help="How packets get to the local stack.",
)  # fmt: skip
@click.option(
    "--detach-on-exit", is_flag=True,
    help="Take the kernel's programs off at exit: else they forward on. In user space: stop holding replies back.",
)  # fmt: skip
@options.control
@options.metrics
@options.health_token
def command(
    config: Path,
    interface: str,
    addresses: tuple[Address, ...],
    mode: str,
    muxes: tuple[Address, ...],
    driver: str,
    detach_on_exit: bool,
    control: Path | None,
    metrics: str | None,
    health_token: Path | None,
) -> None:
    """Run the host agent: what muxes tunnel to this host gets to its servers, replies go out with the VIP.

    SIGHUP loads the configuration anew, SIGTERM ends it.  Its flow table stays for the next agent, and until that one
    comes no reply leaves with the DIP as its source (`lbmux detach` ends that).
    """
    from lbmux.daemons.agent_daemon import Options, serve
    from lbmux.daemons.process import run

    options = Options(config, interface, addresses, mode, muxes, control, driver, detach_on_exit, metrics, health_token)
    run(serve(options))
