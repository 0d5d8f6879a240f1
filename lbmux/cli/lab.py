"""`lbmux lab`: a network of namespaces with everything in it."""

import json
from collections.abc import Sequence
from typing import Any

import click

TOPOLOGY = click.argument("topology", default="ananta")
NAME = click.option("--name", default="lbmux", show_default=True, help="Name of the lab: several may be up.")
JSON = click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
DRIVER = click.option(
    "--driver", type=click.Choice(["auto", "packet", "xdp"]), default="auto", show_default=True,
    help="What muxes and agents forward with (packet: AF_PACKET and TUN).",
)  # fmt: skip


@click.group(name="lab")
def command() -> None:
    """Build a network of namespaces to try it all in: client, router, muxes, hosts with real servers.  Needs root."""


def _lab(topology: str, name: str, driver: str = "auto") -> Any:
    from lbmux.lab.lab import Lab
    from lbmux.lab.topology import TOPOLOGIES

    if topology not in TOPOLOGIES:
        raise click.BadParameter(f"{topology!r}: one of {', '.join(TOPOLOGIES)}", param_hint="TOPOLOGY")
    agent_driver = {"packet": "tun"}.get(driver, driver)
    return Lab(TOPOLOGIES[topology](driver, agent_driver), name)


@command.command()
@TOPOLOGY
@NAME
@DRIVER
@JSON
def up(topology: str, name: str, driver: str, as_json: bool) -> None:
    """Bring the lab up; fine if it is."""
    import sys
    import time

    lab, start = _lab(topology, name, driver), time.monotonic()
    if sys.stderr.isatty() and lab.compiles:
        click.echo("compiling (once)…", err=True)
    built = lab.up()
    seconds = time.monotonic() - start
    if as_json:
        click.echo(json.dumps(lab.status() | {"built": built, "seconds": round(seconds, 3)}))
    else:
        said = f"up in {seconds:.1f} s" if built else "was up"
        click.echo(f"lab {name} ({topology}): {said}.  Services: {lab.config}")


@command.command()
@TOPOLOGY
@NAME
@JSON
def down(topology: str, name: str, as_json: bool) -> None:
    """Take the lab down: what it made, nothing else."""
    removed = _lab(topology, name).down()
    click.echo(json.dumps({"removed": removed}) if as_json else f"lab {name}: {'down' if removed else 'was down'}.")


@command.command()
@TOPOLOGY
@NAME
@JSON
def status(topology: str, name: str, as_json: bool) -> int:
    """Nodes, addresses and programs; exit 0 if all is up, else 1."""
    state = _lab(topology, name).status()
    if as_json:
        click.echo(json.dumps(state))
    else:
        _print_status(state)
    return 0 if state["up"] else 1


def _print_status(state: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"lab {state['name']} ({state['topology']}): {'up' if state['up'] else 'not up'}")
    for column in ("node", "role", "namespace", "addresses", "programs"):
        table.add_column(column)
    for node in state["nodes"]:
        programs = [f"{p['name']} {p['pid'] if p['alive'] else 'dead'}" for p in node["programs"]]
        addresses = "\n".join(node["addresses"])
        namespace = node["namespace"] if node["there"] else "-"
        table.add_row(node["node"], node["role"], namespace, addresses, "\n".join(programs))
    Console().print(table)


@command.command(name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@NAME
@click.argument("node")
@click.argument("arguments", metavar="CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, node: str, arguments: Sequence[str]) -> int:
    """Run a command in a node; its exit code is ours."""
    from lbmux.errors import LabError

    try:
        return int(_lab("ananta", name).run(node, list(arguments)).returncode)
    except FileNotFoundError as error:
        raise LabError(node, f"{arguments[0]}: not found") from error


@command.command()
@NAME
@DRIVER
@click.option("--keep", is_flag=True, help="Leave the lab up.")
@JSON
def demo(name: str, driver: str, keep: bool, as_json: bool) -> int:
    """Real TCP through it all: transfers, spread, DSR, a mux that dies, backends that change.

    It ends with a table of what was expected against what was seen; exit 0 if every row holds.
    """
    from lbmux.lab.demo import run

    return run(_lab("ananta", name, driver), keep=keep, as_json=as_json)
