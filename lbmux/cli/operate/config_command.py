"""`lbmux config check`, `diff`, `from-capture`, `get`, `import` and `schema`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lbmux.cli import options
from lbmux.errors import ConfigError, Problem
from lbmux.plurals import counted, noun

if TYPE_CHECKING:
    from lbmux.backends.moved_flows import Flows
    from lbmux.backends.reload_cost import ServiceDiff
    from lbmux.config.models import Config
    from lbmux.tools.import_config.read_file import Format

NOT_USABLE = 3
MOST_BACKENDS = 1000


@click.group(name="config")
def command() -> None:
    """Check a configuration file, compare two, make or import one, print the pool's, or print the schema."""


@command.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> int:
    """Print all errors in FILE (- is standard input) as `FILE:LINE: field: message`.

    The exit code is 0 if the configuration is valid, else 3.
    """
    try:
        config = _load(file)
    except ConfigError as error:
        # Write to standard output: the problems are the result, and users may pipe it.
        for line in error.lines():
            click.echo(line)
        return NOT_USABLE
    backends = sum(len(service.backends) for service in config.services)
    click.echo(f"{file}: valid: {counted(len(config.services), 'service')}, {counted(backends, 'backend')}")
    return 0


@command.command()
@click.argument("new", type=click.Path(path_type=Path))
@click.argument("later", metavar="[REVISION]", type=click.IntRange(1), required=False)
@click.option(
    "-c", "--config", "current", type=options.PATH, envvar="LBMUX_CONFIG", show_envvar=True,
    help="Old configuration file. [default: the configuration in force at --control]",
)  # fmt: skip
@click.option(
    "--control", type=options.PATH, envvar="LBMUX_CONTROL", show_envvar=True,
    help="Control socket of a mux, to count flows that would move. [default without -c: the daemon on this machine]",
)  # fmt: skip
@options.manager_access
@options.json
def diff(
    new: Path, later: int | None, current: Path | None, control: Path | None,
    managers: tuple[str, ...], token_file: Path, manager_ca: Path, as_json: bool,
) -> None:  # fmt: skip
    """Print the services and backends that NEW changes, and the share of Maglev slots and of live flows that move.

    NEW may be - for standard input. With two arguments, NEW and REVISION are revisions of the pool (--manager).

    A slot decides where new flows go. Flows that a mux remembers stay with their backend while it is up; a removed
    backend goes when its last flow has ended.
    """
    from lbmux.api.control_client import ControlClient
    from lbmux.api.control_paths import meant_path
    from lbmux.api.requests import GetConfig
    from lbmux.backends.moved_flows import flows
    from lbmux.backends.reload_cost import diff as compare
    from lbmux.config.models import Config

    if later is not None:
        before, after = _revisions((new, later), (managers, token_file, manager_ca))
    else:
        after = _load(new)
    if later is not None:
        control = None
    elif current is not None:
        before = _load(current)
    else:
        control = meant_path(control)
        before = Config.model_validate_json(ControlClient(control).ask(GetConfig()))
    counts = flows(before, after, _live(control)) if control is not None else None
    differences = compare(before, after)
    if as_json:
        click.echo(json.dumps(_as_json(differences, counts)))
        return
    for line in _as_text(differences, counts):
        click.echo(line)


@command.command()
@click.argument("revision", type=click.IntRange(1), required=False)
@options.manager_access
@options.json
def get(revision: int | None, managers: tuple[str, ...], token_file: Path, manager_ca: Path, as_json: bool) -> None:
    """Print the pool's configuration file, with its revision in the first line. [default: the current revision]

    `lbmux apply` refuses the changed file if another revision is current by then.
    """
    from lbmux.cli.pool.manager_access import client
    from lbmux.manager.api_models import ConfigAnswer

    answer = client(managers, token_file, manager_ca).get("/v1/config", ConfigAnswer, revision=revision)
    text = json.dumps({"version": 1, **answer.model_dump(mode="json")}) if as_json else answer.file
    click.echo(text, nl=not text.endswith("\n"))


def _revisions(numbers: tuple[Path, int], access: tuple[tuple[str, ...], Path, Path]) -> "Iterator[Config]":
    """Yield the configurations of two revisions at the manager."""
    from lbmux.cli.pool.manager_access import client
    from lbmux.config.loader import parse
    from lbmux.manager.api_models import ConfigAnswer

    if not str(numbers[0]).isdecimal():
        raise click.UsageError(f"{numbers[0]} is not a revision")
    manager = client(*access)
    for number in map(int, map(str, numbers)):
        answer = manager.get("/v1/config", ConfigAnswer, revision=number)
        yield parse(answer.file.encode(), Path(f"revision {number}"))


def _load(path: Path) -> "Config":
    """Load the configuration from a file or from standard input; raise ConfigError."""
    from lbmux.config.loader import load

    return load(path)


def _live(control: Path) -> dict[tuple[str, str], int]:
    """Return the number of live flows by service and backend at a running daemon."""
    from lbmux.api.control_client import ControlClient
    from lbmux.api.requests import GetBackends

    return {line.key: line.live_flows for line in ControlClient(control).whole(GetBackends()).backends}


def _as_json(differences: "Sequence[ServiceDiff]", counts: "Mapping[str, Flows] | None") -> dict[str, Any]:
    from dataclasses import asdict

    document: dict[str, Any] = {"version": 1, "services": [asdict(one) for one in differences]}
    if counts is not None:
        by_service = {name: asdict(one) for name, one in counts.items()}
        sums = {key: sum(one[key] for one in by_service.values()) for key in ("all", "move", "remain")}
        document["live_flows"] = {**sums, "services": by_service}
    return document


def _as_text(differences: "Sequence[ServiceDiff]", counts: "Mapping[str, Flows] | None") -> Iterator[str]:
    for one in differences:
        moved = "" if one.slots_moved is None else f": {one.slots_moved:.1%} of its slots move"
        yield f"service {one.service}: {one.change}{moved}"
        for change in ("added", "removed", "changed") if one.change == "changed" else ():
            yield from (f"  backend {name}: {change}" for name in getattr(one, change))
        if counts is not None and one.service in counts:
            yield f"  {_flows(counts[one.service])}"
    if not differences:
        yield "no differences"
    elif counts is not None:
        yield _flows(*counts.values())


def _flows(*counts: "Flows") -> str:
    every, move, remain = (sum(getattr(one, key) for one in counts) for key in ("all", "move", "remain"))
    share = f" ({move / every:.1%})" if every else ""
    rest = f"; {remain} {noun(remain, 'remains', 'remain')} with removed backends" if remain else ""
    return f"{move} of {counted(every, 'live flow')} {noun(move, 'moves', 'move')}{share}{rest}"


@command.command(name="from-capture")
@click.argument("capture", metavar="IN", type=options.PATH)
@click.option(
    "--backends", type=click.IntRange(1, MOST_BACKENDS), default=4, show_default=True,
    help="Number of placeholder backends in each service.",
)  # fmt: skip
@click.option(
    "--services", "most", type=click.IntRange(1), metavar="N",
    help="Keep the N services with most flows. [default: as many as a file may have]",
)  # fmt: skip
def from_capture(capture: Path, backends: int, most: int | None) -> None:
    """Print a configuration for a capture: its services, with placeholder backends, for `lbmux replay IN -c FILE`.

    IN is a capture as for `lbmux replay` (- is standard input).  A service is a destination that got TCP SYNs or UDP
    requests; the services with most flows come first.  The backends' addresses are from 198.18.0.0/15 and 2001:2::/48.
    A damaged capture is read up to the damage; the exit code is then 1.
    """
    from lbmux.cli.capture_progress import progress
    from lbmux.config.models import MAX_SERVICES
    from lbmux.tools.replay.captured_services import as_yaml, services_in
    from lbmux.tools.replay.looped_capture import LoopedCapture

    with LoopedCapture(capture) as looped, progress(looped) as update:
        services, damage = services_in(looped, update)
        packets = counted(looped.packets, "packet")
    kept = services[: most or MAX_SERVICES]
    title = f"{counted(len(kept), 'service')} of {capture} ({packets}), by `lbmux config from-capture`"
    click.echo(as_yaml(kept, backends, title), nl=False)
    if len(services) > len(kept):
        click.echo(
            f"{capture}: {counted(len(services) - len(kept), 'more service')} left out: see --services", err=True
        )
    if damage:
        raise damage


@command.command(name="import")
@click.argument("file", metavar="FILE", type=options.PATH)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["seesaw", "keepalived", "ipvs"]),
    help="Format of FILE. [default: guessed from its content]",
)
def import_(file: Path, kind: "Format | None") -> None:
    """Print a configuration made from another load balancer's FILE (- is standard input).

    FILE is Seesaw's cluster.pb, a keepalived.conf with virtual_server blocks, or what `ipvsadm -S -n` prints.  Comments
    at the head of the result list every key that was not imported, or was changed, with its line.
    """
    from lbmux.config import loader
    from lbmux.tools.import_config.imported import as_yaml
    from lbmux.tools.import_config.read_file import read

    try:
        text = loader.read(file).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(file, (Problem(None, "", f"cannot be read: {error}"),)) from error
    imported = read(text, file, kind)
    click.echo(as_yaml(imported, file), nl=False)
    left, services = counted(len(imported.left), "remark"), counted(len(imported.services), "service")
    click.echo(f"{file}: {services}; {left} at the head of the result", err=True)


@command.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors and other tools."""
    from lbmux.config.models import Config

    click.echo(json.dumps(Config.model_json_schema(), indent=2))
