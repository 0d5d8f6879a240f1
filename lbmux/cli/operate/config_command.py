"""`lbmux config check`, `lbmux config diff` and `lbmux config schema`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lbmux.cli import options
from lbmux.errors import ConfigError
from lbmux.plurals import counted, noun

if TYPE_CHECKING:
    from lbmux.backends.reload_cost import Flows, ServiceDiff
    from lbmux.config.models import Config

NOT_USABLE = 3


@click.group(name="config")
def command() -> None:
    """Check a configuration file, compare two, or print the schema."""


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> int:
    """Print all errors in FILE (- is standard input) as `FILE:LINE: field: message`.

    The exit code is 0 if the configuration is valid, else 3.
    """
    try:
        config = _load(file)
    except ConfigError as error:
        # On standard output: the problems are the result, and may go through a pipe.
        for line in error.lines():
            click.echo(line)
        return NOT_USABLE
    backends = sum(len(service.backends) for service in config.services)
    click.echo(f"{file}: valid: {counted(len(config.services), 'service')}, {counted(backends, 'backend')}")
    return 0


@command.command()
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "-c", "--config", "current", type=options.PATH, envvar="LBMUX_CONFIG", show_envvar=True,
    help="Old configuration file. [default: the configuration in force at --control]",
)  # fmt: skip
@click.option(
    "--control", type=options.PATH, envvar="LBMUX_CONTROL", show_envvar=True,
    help="Control socket of a mux, to count flows that would move. [default without -c: the daemon on this machine]",
)  # fmt: skip
@click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
def diff(new: Path, current: Path | None, control: Path | None, as_json: bool) -> None:
    """Print the services and backends that NEW changes, and the share of Maglev slots and of live flows that move.

    NEW may be - for standard input.

    A slot decides where new flows go. Flows that a mux remembers stay with their backend while it is up; a removed
    backend goes when its last flow has ended.
    """
    from lbmux.api.control_socket import ask, meant_path
    from lbmux.backends.reload_cost import diff as compare
    from lbmux.backends.reload_cost import flows
    from lbmux.config.models import Config

    after = _load(new)
    if current is not None:
        before = _load(current)
    else:
        control = meant_path(control)
        before = Config.model_validate_json(ask(control, "config"))
    counts = flows(before, after, _live(control)) if control is not None else None
    found = compare(before, after)
    if as_json:
        click.echo(json.dumps(_as_json(found, counts)))
        return
    for line in _as_text(found, counts):
        click.echo(line)


def _load(path: Path) -> "Config":
    """Load the configuration from a file or from standard input; raise ConfigError."""
    import sys

    from lbmux.config.loader import MAX_BYTES, load, parse

    return parse(sys.stdin.buffer.read(MAX_BYTES + 1), path) if str(path) == "-" else load(path)


def _live(control: Path) -> dict[tuple[str, str], int]:
    """Return the number of live flows by service and backend at a running daemon."""
    from lbmux.api.control_socket import ask_stream

    answers = ask_stream(control, "backends")
    return {(one["service"], one["backend"]): one["live_flows"] for answer in answers for one in answer["backends"]}


def _as_json(found: "Sequence[ServiceDiff]", counts: "Mapping[str, Flows] | None") -> dict[str, Any]:
    from dataclasses import asdict

    document: dict[str, Any] = {"version": 1, "services": [asdict(one) for one in found]}
    if counts is not None:
        by_service = {name: asdict(one) for name, one in counts.items()}
        sums = {key: sum(one[key] for one in by_service.values()) for key in ("all", "move", "remain")}
        document["live_flows"] = {**sums, "services": by_service}
    return document


def _as_text(found: "Sequence[ServiceDiff]", counts: "Mapping[str, Flows] | None") -> Iterator[str]:
    for one in found:
        moved = "" if one.slots_moved is None else f": {one.slots_moved:.1%} of its slots move"
        yield f"service {one.service}: {one.change}{moved}"
        for change in ("added", "removed", "changed") if one.change == "changed" else ():
            yield from (f"  backend {name}: {change}" for name in getattr(one, change))
        if counts is not None and one.service in counts:
            yield f"  {_flows(counts[one.service])}"
    if not found:
        yield "no differences"
    elif counts is not None:
        yield _flows(*counts.values())


def _flows(*counts: "Flows") -> str:
    every, move, remain = (sum(getattr(one, key) for one in counts) for key in ("all", "move", "remain"))
    share = f" ({move / every:.1%})" if every else ""
    rest = f"; {remain} {noun(remain, 'remains', 'remain')} with removed backends" if remain else ""
    return f"{move} of {counted(every, 'live flow')} {noun(move, 'moves', 'move')}{share}{rest}"


@command.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors and other tools."""
    from lbmux.config.models import Config

    click.echo(json.dumps(Config.model_json_schema(), indent=2))
