"""`lbmux explain`: explains what a mux does with a packet, step by step."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lbmux.cli import options
from lbmux.cli.where import Where, where

if TYPE_CHECKING:
    from lbmux.addresses import Address
    from lbmux.api.channel import ControlTarget
    from lbmux.config.models import Config
    from lbmux.tools.explanation import Explanation
    from lbmux.tools.packet_text import ClientPacket


@click.command(name="explain")
@click.option("-c", "--config", type=options.PATH, help="Use this configuration instead of a running mux.")
@where(default="the mux on this machine")
@click.option(
    "--router",
    metavar="NETNS",
    help="Also ask the Linux router in this network namespace (. is the current one) to which mux it sends the packet.",
)
@click.option(
    "--seed",
    type=click.IntRange(1, 0xFFFFFFFF),
    metavar="N",
    help="Also report, as root, to which mux a Linux router with this net.ipv4.fib_multipath_hash_seed,"
    " fib_multipath_hash_policy=3 and fib_multipath_hash_fields=55 sends the packet.",
)
@click.option(
    "--muxes",
    metavar="A,B",
    help="With --seed: the router's next hops for the VIP, in the order of its route. [default: `muxes` of the"
    " configuration]",
)
@click.option(
    "--syn", is_flag=True, help="Treat the packet as the first of a connection. [default: it belongs to an open one]"
)
@click.option("--length", type=int, help="Length of the packet, in bytes. [default: the shortest possible]")
@click.option(
    "--packet", "number", type=click.IntRange(1), metavar="N",
    help="Explain the Nth packet of the capture FILE, and print its headers.",
)  # fmt: skip
@options.json
@click.argument("packet", metavar="'SRC:PORT > VIP:PORT/tcp' | FILE", nargs=-1, required=True)
def command(
    config: Path | None,
    where: Where,
    router: str | None,
    seed: int | None,
    muxes: str | None,
    syn: bool,
    length: int | None,
    number: int | None,
    as_json: bool,
    packet: tuple[str, ...],
) -> None:
    """Explain what a mux does with a packet: the result of each step, the verdict, and a hint if it is dropped.

    This runs the data path itself, on a private copy of the tables, and changes nothing.  Which of several muxes a
    router picks depends on its seed.  --router asks the kernel of a Linux router on this machine.  --seed asks a
    temporary router in a network namespace.

    With --manager, all muxes are asked, and then the agent of the host that the mux sends the packet to.
    """
    from lbmux.config.loader import load
    from lbmux.tools.router_choice import with_router, with_seed

    if (seed is not None) + (router is not None) > 1 or (muxes is not None and seed is None):
        raise click.UsageError("use either --router NETNS or --seed N [--muxes A,B]")
    if number is not None and (syn or length is not None or len(packet) > 1):
        raise click.UsageError("--packet N takes one FILE, and neither --syn nor --length")
    read = None if config is None else load(config)
    mux = None if read is not None or (where.is_pool and number is None) else where.one("mux")
    explanation, layers = _explain(packet, number, syn, length, read or mux or where)
    subject = explanation.packet
    if router is not None:
        explanation = with_router(explanation, router, mux)
    if seed is not None:
        explanation = with_seed(explanation, seed, _ways(muxes, read, subject), mux)
    _print(explanation, layers, as_json)


def _print(explanation: "Explanation", layers: list[str], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(explanation.as_json() | ({"layers": layers} if layers else {})))
        return
    for line in layers:
        click.echo(f"{click.style('header       ', bold=True)} {line}")
    for step in explanation.steps:
        click.echo(f"{click.style(f'{step.step:13}', bold=True)} {step.found}")
    if explanation.hint:
        click.echo(f"{click.style('hint         ', bold=True)} {explanation.hint}")


def _explain(
    words: tuple[str, ...], number: int | None, syn: bool, length: int | None, source: "ControlTarget | Config | Where"
) -> "tuple[Explanation, list[str]]":
    """Return the explanation and, for a packet of a capture, a line for each of its headers."""
    from dataclasses import replace

    from lbmux.config.models import Config
    from lbmux.tools.dissect import dissect
    from lbmux.tools.explain_frame import explain_frame, frame_of
    from lbmux.tools.explain_mux import explain_configuration, explain_live
    from lbmux.tools.explain_pool import explain_in_pool
    from lbmux.tools.packet_text import ClientPacket

    if number is not None:
        frame = frame_of(Path(words[0]), number)
        assert not isinstance(source, Where)  # the user named one mux
        return explain_frame(frame, source), dissect(frame)
    packet = ClientPacket.parse(" ".join(words), syn, length)
    if isinstance(source, Where):
        return explain_in_pool(packet, source.nodes(), replace(source, node="*").nodes("agent")), []
    return (explain_configuration(packet, source) if isinstance(source, Config) else explain_live(packet, source)), []


def _ways(text: str | None, config: "Config | None", packet: "ClientPacket") -> "list[Address]":
    """Return the given next hops, or else the configuration's muxes, of the VIP's address family."""
    from ipaddress import ip_address

    try:
        ways = [ip_address(one.strip()) for one in text.split(",")] if text else [*(config.muxes if config else ())]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--muxes") from error
    ways = [way for way in ways if way.version == packet.vip.version]
    if not ways:
        raise click.UsageError(f"--seed needs IPv{packet.vip.version} addresses of muxes: use --muxes A,B")
    return ways
