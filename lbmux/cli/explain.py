"""`lbmux explain`: what a mux does with a packet, step by step."""

import json
from pathlib import Path

import click

from lbmux.cli import options


@click.command(name="explain")
@click.option(
    "-c", "--config", type=options.PATH, help="Explain from this configuration alone, not by the mux that runs here."
)
@options.control
@click.option(
    "--router", metavar="NETNS",
    help="Ask a router, too, by the name of its network namespace (. is this one), to which mux it sends the packet.",
)
@click.option("--syn", is_flag=True, help="The packet opens its connection. [default: it is one of an open one]")
@click.option("--length", type=int, help="Bytes of the packet. [default: as short as can be]")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("packet", metavar="'SRC:PORT > VIP:PORT/tcp'", nargs=-1, required=True)
def command(
    config: Path | None,
    control: Path | None,
    router: str | None,
    syn: bool,
    length: int | None,
    as_json: bool,
    packet: tuple[str, ...],
) -> None:
    """Say what a mux does with a packet: each step, what it found, the verdict, and how to mend it.

    The data path itself is run, on a private copy of the tables: nothing changes.  Which of several muxes a router
    picks depends on its seed: --router asks its kernel, if it is a Linux on this machine.
    """
    from lbmux.control.config_file import load
    from lbmux.control.control_socket import default_path
    from lbmux.tools.explain import explain_configuration, explain_live
    from lbmux.tools.packet import Packet
    from lbmux.tools.router_choice import with_router

    asked = Packet.parse(" ".join(packet), syn, length)
    if config is not None:
        explanation = explain_configuration(asked, load(config))
    else:
        explanation = explain_live(asked, control or default_path("mux"))
    if router is not None:
        explanation = with_router(explanation, router, None if config else control or default_path("mux"))
    if as_json:
        click.echo(json.dumps(explanation.as_json()))
        return
    for step in explanation.steps:
        click.echo(f"{click.style(f'{step.step:13}', bold=True)} {step.found}")
    if explanation.mend:
        click.echo(f"{click.style('to mend it   ', bold=True)} {explanation.mend}")
