"""`lbmux agent`: runs a host agent."""

from pathlib import Path

import click

from lbmux.addresses import Address
from lbmux.cli import options


@click.command(name="agent")
@options.node
@options.interface
@click.option(
    "--address", "addresses", type=options.ADDRESS, multiple=True, envvar="LBMUX_ADDRESS", show_envvar=True,
    help="Address where tunnels end; may be repeated. [default: all addresses of this machine]",
)  # fmt: skip
@click.option(
    "--mode", type=click.Choice(["nat", "local"]), default="nat", show_default=True,
    envvar="LBMUX_MODE", show_envvar=True,
    help="nat: translate the VIP to the DIP and back; local: the VIP is an address of this host.",
)  # fmt: skip
@click.option(
    "--mux", "muxes", type=options.ADDRESS, multiple=True,
    help="Outer source address to accept in addition to `muxes` of the configuration; may be repeated.",
)  # fmt: skip
@click.option(
    "--driver", type=click.Choice(["auto", "tun", "xdp"]), default="auto", show_default=True,
    envvar="LBMUX_DRIVER", show_envvar=True, help="How packets reach the local stack.",
)  # fmt: skip
@click.option(
    "--detach-on-exit", is_flag=True,
    help="Detach the kernel programs at exit, else they keep forwarding. In user space: stop holding replies back.",
)  # fmt: skip
@options.control
@options.metrics
@options.health_token
def command(
    config: Path | None,
    managers: tuple[str, ...],
    state: Path,
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
    """Run the host agent: deliver what muxes tunnel to this host, and send replies from the VIP.

    SIGHUP reloads the configuration, SIGTERM stops the agent.  Its flow table stays for the next agent.  Until that one
    starts, replies with the DIP as source are held back (`lbmux detach` releases them).
    """
    from lbmux.daemons.agent_daemon import Options, serve
    from lbmux.daemons.process import run

    settings = Options(
        **options.source("agent", config, managers, state),
        interface=interface,
        addresses=addresses,
        mode=mode,
        muxes=muxes,
        control=control,
        driver=driver,
        detach_on_exit=detach_on_exit,
        metrics=metrics,
        health_token=health_token,
    )
    run(serve(settings))
