"""`lbmux config check FILE`, `lbmux config diff NEW -c CURRENT` and `lbmux config schema`."""

import json
from pathlib import Path

import click

from lbmux.errors import ConfigError

NOT_USABLE = 3


@click.group(name="config")
def command() -> None:
    """Check a configuration file, compare two, or print the schema."""


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> int:
    """Print everything that is wrong with FILE as `FILE:LINE: field: message`.

    Exit code 0 if it can be used, 3 if not.
    """
    from lbmux.control.config_file import load

    try:
        config = load(file)
    except ConfigError as error:
        # On standard output: the problems are what was asked for, and go through a pipe.
        for line in error.lines():
            click.echo(line)
        return NOT_USABLE
    backends = sum(len(service.backends) for service in config.services)
    click.echo(f"{file}: fine: {_count(len(config.services), 'service')}, {_count(backends, 'backend')}")
    return 0


@command.command()
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "-c", "--config", "current", type=click.Path(path_type=Path), required=True, help="The configuration before."
)
@click.option(
    "--control", type=click.Path(path_type=Path), help="A running mux's socket: how many of its flows would move, too."
)
@click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
def diff(new: Path, current: Path, control: Path | None, as_json: bool) -> None:
    """Print the services and backends that NEW changes, and the share of Maglev slots that move.

    A slot is where new flows go. Flows that a mux remembers stay, as long as their backend does.
    """
    from dataclasses import asdict

    from lbmux.control.config_diff import diff as compare
    from lbmux.control.config_diff import flows_that_move
    from lbmux.control.config_file import load
    from lbmux.control.control_socket import ask

    before, after = load(current), load(new)
    found = compare(before, after)
    flows = None
    if control is not None:
        lines = ask(control, "backends")["backends"]
        live = {(line["service"], line["backend"]): line["live_flows"] for line in lines}
        flows = flows_that_move(before, after, live)
    if as_json:
        said = {"version": 1, "services": [asdict(one) for one in found]}
        click.echo(json.dumps(said | ({"live_flows": {"move": flows[0], "all": flows[1]}} if flows else {})))
        return
    for one in found:
        moved = "" if one.slots_moved is None else f": {one.slots_moved:.1%} of its slots move"
        click.echo(f"service {one.service}: {one.change}{moved}")
        for change in ("added", "removed", "changed") if one.change == "changed" else ():
            for name in getattr(one, change):
                click.echo(f"  backend {name}: {change}")
    if not found:
        click.echo("no service differs")
    if flows is not None:
        click.echo(f"of {flows[1]} live flows {flows[0]} move{f' ({flows[0] / flows[1]:.1%})' if flows[1] else ''}")


@command.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors and other tools."""
    from lbmux.control.config import Config

    click.echo(json.dumps(Config.model_json_schema(), indent=2))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
