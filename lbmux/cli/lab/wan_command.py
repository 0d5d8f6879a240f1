"""`lbmux lab wan`: delays and loses frames between interfaces, as a wide-area network does."""

import json

import click

from lbmux.cli import options


@click.command(name="wan")
@click.option(
    "--site", "sites", metavar="NAME=INTERFACE", multiple=True, required=True, help="A site; may be repeated."
)
@click.option(
    "--path", "paths", metavar="FROM>TO:MS[,MS[,SHARE]]", multiple=True, required=True,
    help="Delay, jitter and loss from one site to another; may be repeated.  The reverse direction is the same unless"
    " it is given.",
)  # fmt: skip
@click.option("--queue", type=click.IntRange(1, 1_000_000), default=8192, show_default=True,
              help="Queue length of each direction, in frames; further frames are dropped and counted.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the random jitter and loss.")
@options.json
def command(sites: tuple[str, ...], paths: tuple[str, ...], queue: int, seed: int, as_json: bool) -> None:
    """Connect interfaces like an Ethernet switch, with delay, jitter and loss by pair of sites and direction.

    It runs until it is interrupted, then prints its counters: frames by direction, frames lost at random, frames
    dropped because a queue was full, and frames that the node itself sent over 1 ms late.
    """
    import signal

    from lbmux.daemons.process import notify
    from lbmux.lab.wan_node import WanNode, both_ways, parse_path, parse_sites

    try:
        node = WanNode(parse_sites(sites), both_ways(dict(map(parse_path, paths))), queue, seed)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: node.stop())
    notify("READY=1")
    node.run()
    report = node.report()
    node.close()
    if as_json:
        click.echo(json.dumps({"version": 1, **report}))
        return
    for direction, counters in report["paths"].items():
        click.echo(f"{direction}: " + ", ".join(f"{count} {name}" for name, count in counters.items()))
    late = report["error"]
    click.echo(f"sent late: median {late['p50_ms']:.2f} ms, 99th percentile {late['p99_ms']:.2f} ms")
