"""`lbmux lab`: builds, inspects and removes a test network of namespaces."""

import json
from collections.abc import Sequence
from typing import Any

import click

from lbmux.cli import options
from lbmux.cli.lab.lab_chaos_command import command as chaos_command
from lbmux.cli.lab.lab_run_command import command as run_command
from lbmux.cli.lab.wan_command import command as wan_command
from lbmux.cli.operate import completion_names

BUILT_IN = "ananta"
TOPOLOGY = click.argument("topology", default=BUILT_IN, shell_complete=completion_names.topologies)
NAME = click.option(
    "--name", default="lbmux", show_default=True, help="Name of the lab; several labs can be up at once."
)
DRIVER = click.option(
    "--driver", type=click.Choice(["auto", "packet", "xdp"]), default="auto", show_default=True,
    help="Driver of muxes and agents (packet: AF_PACKET and TUN).",
)  # fmt: skip


@click.group(name="lab")
def command() -> None:
    """Build a test network of namespaces: client, router, muxes, hosts with real servers.  Needs root."""


command.add_command(run_command)
command.add_command(chaos_command)
command.add_command(wan_command)


def _topology(topology: str, **sites: Any) -> Any:
    """Return a built-in topology by its name, or load one from a file.  ``sites``: their numbers by kind."""
    from pathlib import Path

    from lbmux.lab.systems.built_in import TOPOLOGIES
    from lbmux.lab.topology_file import load

    if sites:
        from lbmux.lab.systems.facebook_global import facebook_global

        if topology != "facebook-global":
            raise click.UsageError(f"--{next(iter(sites))} applies to facebook-global only")
        try:
            return facebook_global(**sites)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    if topology in TOPOLOGIES:
        return TOPOLOGIES[topology]()
    if not Path(topology).is_file():
        known = ", ".join(TOPOLOGIES)
        raise click.BadParameter(f"{topology!r} is neither a file nor one of {known}", param_hint="TOPOLOGY")
    return load(Path(topology))


def _existing(name: str) -> Any:
    """Return the lab of that name, as it was brought up."""
    from lbmux.lab.lab import Lab

    return Lab.existing(name, _topology(BUILT_IN))


@command.command()
@TOPOLOGY
@NAME
@DRIVER
@click.option(
    "--managers", type=int, metavar="N",
    help="Add N managers, which muxes and agents follow: 1 with SQLite, or 3 to 9 with etcd.",
)  # fmt: skip
@click.option("--pops", type=int, metavar="N", help="Number of PoPs of facebook-global. [default: 3]")
@click.option("--dcs", type=int, metavar="N", help="Number of data centres of facebook-global. [default: 2]")
@click.option("--regions", type=int, metavar="N", help="Number of regions of users of facebook-global. [default: 4]")
@options.json
def up(topology: str, name: str, driver: str, managers: int | None, as_json: bool, **sites: int | None) -> None:
    """Bring the lab up, unless it is up.  TOPOLOGY is a built-in name or a file like `lbmux lab topology` prints.

    With --managers, DIRECTORY/pool/env has the variables with which commands in a node reach the managers.
    """
    import sys
    import time

    from lbmux.lab.lab import Lab
    from lbmux.lab.managed import with_managers

    built_in = _topology(topology, **{kind: count for kind, count in sites.items() if count is not None})
    lab = Lab(built_in if managers is None else with_managers(built_in, managers), name, driver)
    start = time.monotonic()
    if sys.stderr.isatty() and lab.compiles:
        click.echo("compiling (once)…", err=True)
    built = lab.up()
    seconds = time.monotonic() - start
    if as_json:
        click.echo(json.dumps(lab.status() | {"built": built, "seconds": round(seconds, 3)}))
    else:
        state = f"up in {seconds:.1f} s" if built else "was already up"
        click.echo(f"lab {name} ({topology}): {state}.  Services: {lab.config}")
        if managers is not None:
            click.echo(f"managers: in a node, . {lab.directory}/pool/env")


@command.command()
@NAME
@options.json
def down(name: str, as_json: bool) -> None:
    """Take the lab down; this removes only what the lab created."""
    removed = _existing(name).down()
    click.echo(
        json.dumps({"removed": removed}) if as_json else f"lab {name}: {'down' if removed else 'was already down'}."
    )


@command.command()
@NAME
@options.json
def status(name: str, as_json: bool) -> int:
    """Show nodes, addresses and programs; the exit code is 0 if all is up, else 1."""
    state = _existing(name).status()
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
@click.argument("node", shell_complete=completion_names.nodes)
@click.argument("arguments", metavar="CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, node: str, arguments: Sequence[str]) -> int:
    """Run a command in a node, and exit with its exit code."""
    from lbmux.errors import LabError

    try:
        return int(_existing(name).run(node, list(arguments)).returncode)
    except FileNotFoundError as error:
        raise LabError(node, f"{arguments[0]}: not found") from error


@command.command()
@NAME
@DRIVER
@click.option("--keep", is_flag=True, help="Leave the lab up.")
@options.json
def demo(name: str, driver: str, keep: bool, as_json: bool) -> int:
    """Demonstrate lbmux with real TCP: transfers, spread, DSR, a mux that fails, backends that change.

    A table compares expected and measured results; the exit code is 0 if all agree.
    """
    from lbmux.lab.demo import run
    from lbmux.lab.lab import Lab

    return run(Lab(_topology(BUILT_IN), name, driver), keep=keep, as_json=as_json)


@command.command()
@TOPOLOGY
@options.json
def topology(topology: str, as_json: bool) -> None:
    """Print a topology as YAML, to edit it and bring it up."""
    import yaml

    from lbmux.lab.topology_file import plain

    data = plain(_topology(topology))
    click.echo(json.dumps(data) if as_json else yaml.safe_dump(data, sort_keys=False), nl=as_json)
