"""`lbmux show`: shows the state of a running mux, agent or edge, as a table or as JSON (-j)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lbmux.cli import options
from lbmux.cli.operate import completion_names
from lbmux.cli.text_table import cell, print_table
from lbmux.plurals import counted

if TYPE_CHECKING:
    from lbmux.api.answers import FlowLine
    from lbmux.api.control_client import ControlClient
    from lbmux.api.requests import ListRequest

FLOWS_SHOWN = 50
Line = TypeVar("Line")
JSON = click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
CONTROL = click.option(
    "--control", type=options.PATH, envvar="LBMUX_CONTROL", show_envvar=True,
    help="Control socket. [default: the mux on this machine, else the agent, else the edge]",
)  # fmt: skip


def _filter(*fields: str) -> Callable[[Any], Any]:
    """Add an option for each field; shells complete --service and --backend."""
    completions = {"service": completion_names.services, "backend": completion_names.backends}

    def decorate(command: Any) -> Any:
        for field in reversed(fields):
            text = f"Only lines whose {field} matches; * and ? are wildcards."
            option = click.option(f"--{field}", metavar="PATTERN", help=text, shell_complete=completions.get(field))
            command = option(command)
        return command

    return decorate


@click.group(name="show")
def command() -> None:
    """Show the state of a running mux, agent or edge.

    With -j, the output is a JSON object, or one object per line for flows.  Each has a "version", currently 1, which
    changes when a field is removed or changes its meaning.  New fields may appear in the same version; ignore fields
    that you do not know.
    """


@command.command()
@CONTROL
@JSON
@_filter("service", "vip", "protocol")
@click.option("--ipvs", is_flag=True, help="Use the format of `ipvsadm -L -n`.")
def services(control: Path | None, as_json: bool, ipvs: bool, **wanted: str | None) -> None:
    """Show VIPs, their Maglev tables (muxes with the same file have the same digest), traffic and flows."""
    from lbmux.api.requests import GetBackends, GetHealth, GetRuntime, GetServices

    if ipvs:
        from lbmux.cli.inspect.ipvs_listing import listing

        own = _matching(_client(control).whole(GetServices()).services, wanted)
        there, health = _client(control).whole(GetBackends()).backends, _client(control).whole(GetHealth()).health
        places = _client(control).ask(GetRuntime()).tables["flows"].rows
        click.echo("\n".join(listing(own, there, health, places)))
        return
    _print_list(control, GetServices(), as_json, {
        "service": "service", "VIP": "vip", "protocol": "protocol", "port": "ports", "slots": "slots",
        "marked": "marked_slots", "digest": "digest", "up": "backends_up", "of": "backends", "packets": "packets",
        "bytes": "bytes", "new flows": "new_flows", "live flows": "live_flows",
    }, wanted)  # fmt: skip


@command.command()
@CONTROL
@JSON
@_filter("service", "backend", "dip", "host", "state")
def backends(control: Path | None, as_json: bool, **wanted: str | None) -> None:
    """Show backends: state, weight, whether the next hop is known, traffic and flows."""
    from lbmux.api.requests import GetBackends

    _print_list(control, GetBackends(), as_json, {
        "service": "service", "backend": "backend", "DIP": "dip", "port": "port", "host": "host",
        "weight": "weight", "state": "state", "reachable": "reachable", "packets": "packets", "bytes": "bytes",
        "new flows": "new_flows", "live flows": "live_flows", "trusted": "trusted_flows",
    }, wanted)  # fmt: skip


@command.command()
@CONTROL
@JSON
def health(control: Path | None, as_json: bool) -> None:
    """Show the health of backends: up, down, draining, disabled, removing or removed, the reason, and since when."""
    from lbmux.api.requests import GetHealth

    _print_list(control, GetHealth(), as_json, _same("service", "backend", "state", "reason", "since", "drained"))


@command.command()
@CONTROL
@JSON
def neighbours(control: Path | None, as_json: bool) -> None:
    """Show the hosts that a mux tunnels to, and the next hop to each."""
    from lbmux.api.requests import GetNeighbours

    columns = {name: name for name in ("host", "mac", "interface", "mtu", "backends")}
    _print_list(control, GetNeighbours(), as_json, columns)


@command.command()
@CONTROL
@JSON
@click.option("--all", "everything", is_flag=True, help="Include verdicts without packets.")
def counters(control: Path | None, as_json: bool, everything: bool) -> None:
    """Show counters of verdicts, of flow table look-ups, and of frames that the ring lost."""
    from lbmux.api.protocol import to_json
    from lbmux.api.requests import GetCounters

    answer = _client(control).ask(GetCounters())
    if as_json:
        click.echo(to_json(answer))
        return
    lines = [vars(line) for line in answer.verdicts if everything or line.packets]
    print_table(lines, _same("verdict", "kind", "packets", "bytes"))
    others = {f"lookup {name}": count for name, count in answer.lookups.items()}
    for part in ("ring", "pending_neighbours", "slowpath"):
        others |= {f"{part} {name}": count for name, count in (getattr(answer, part) or {}).items()}
    print_table([{"counter": name, "count": count} for name, count in others.items()], _same("counter", "count"))


@command.command()
@CONTROL
@JSON
def runtime(control: Path | None, as_json: bool) -> None:
    """Show the process: driver, modes, versions, configuration, and the sizes and memory of tables."""
    from lbmux.api.protocol import to_json, to_plain
    from lbmux.api.requests import GetRuntime

    answer = _client(control).ask(GetRuntime())
    if as_json:
        click.echo(to_json(answer))
        return
    lines = [{"what": name, "value": value} for name, value in _flat(to_plain(answer)) if name != "version"]
    print_table(lines, {"": "what", " ": "value"})


@command.command()
@CONTROL
@JSON
def bgp(control: Path | None, as_json: bool) -> None:
    """Show the routes that a mux or an edge announces, its sessions, and why a session is not established."""
    from lbmux.api.protocol import to_json
    from lbmux.api.requests import GetBgp

    answer = _client(control).ask(GetBgp())
    if as_json:
        click.echo(to_json(answer))
        return
    click.echo(f"{answer.speaker} announces {cell(answer.prefixes) or 'nothing'}")
    if answer.last_resort:
        click.echo(f"with a longer AS path, because no backend is available: {cell(answer.last_resort)}")
    neighbours = [
        vars(line) | {"bfd": line.bfd or None, "uptime": _age(line.uptime_s), "reason": line.reason or None}
        for line in answer.neighbours
    ]
    print_table(neighbours, {
        "neighbour": "address", "AS": "number", "state": "state", "up for": "uptime", "prefixes": "prefixes",
        "BFD": "bfd", "reason": "reason",
    })  # fmt: skip


@command.command()
@CONTROL
@JSON
@click.option(
    "--sort",
    default="",
    help="Sort by idle, source, port, backend, state or worker; prefix - for descending order.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"Maximum number of flows; 0: all. [default: {FLOWS_SHOWN}; with -j all]",
)
@click.option("--count", is_flag=True, help="Print only the number of flows.")
@click.argument("words", metavar="[FILTER]...", nargs=-1)
def flows(control: Path | None, as_json: bool, sort: str, limit: int | None, count: bool, words: Sequence[str]) -> None:
    """Show live flows, as JSON Lines with -j.

    FILTER uses the grammar of tcpdump: src, dst, host, net, port, portrange, tcp, udp, and, or, not, ( ), and adds
    service NAME, backend NAME, state untrusted|trusted|closing, idle > SECONDS, worker NUMBER.
    """
    from itertools import chain

    from lbmux.api.protocol import to_json
    from lbmux.api.requests import CountFlows, GetFlows

    # A daemon may take any time to sort millions of flows.
    client, expression = _client(control, timeout_s=None), " ".join(words)
    if count:
        answer = client.ask(CountFlows(expression))
        click.echo(to_json(answer) if as_json else answer.flows)
        return
    most = (None if as_json else FLOWS_SHOWN) if limit is None else limit or None
    lines = chain.from_iterable(answer.flows for answer in client.stream(GetFlows(expression, sort, most)))
    if as_json:
        for line in lines:
            click.echo(to_json(line))
        return
    shown = [_flow_line(line) for line in lines]
    print_table(shown, _same("protocol", "source", "destination", "service", "backend", "state", "idle s", "worker"))
    if most is not None and len(shown) == most:
        total = client.ask(CountFlows(expression)).flows
        click.echo(f"{most} of {counted(total, 'flow')}; --limit 0 shows all")


def _flow_line(line: "FlowLine") -> dict[str, Any]:
    ends = {
        "source": f"{line.source}:{line.source_port}",
        "destination": f"{line.destination}:{line.destination_port}",
    }
    return {**vars(line), **ends, "idle s": f"{line.idle_s:.1f}"}


def _age(seconds: float | None) -> str | None:
    """Format the age of a session: 3 days, 2:10:05."""
    from datetime import timedelta

    return None if seconds is None else str(timedelta(seconds=int(seconds)))


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _client(control: Path | None, timeout_s: float | None = 30.0) -> "ControlClient":
    from lbmux.api.control_client import ControlClient
    from lbmux.api.control_paths import meant_path

    return ControlClient(meant_path(control), timeout_s)


def _matching(lines: Sequence[Line], wanted: Mapping[str, str | None]) -> list[Line]:
    """Return the lines whose fields match all patterns; an address matches in any notation."""
    from fnmatch import fnmatchcase

    patterns = {field: _plain(pattern) for field, pattern in wanted.items() if pattern is not None}
    return [
        line for line in lines if all(fnmatchcase(str(getattr(line, field)), one) for field, one in patterns.items())
    ]


def _plain(pattern: str) -> str:
    from ipaddress import ip_address

    try:
        return str(ip_address(pattern))
    except ValueError:
        return pattern


def _print_list(
    control: Path | None, request: "ListRequest[Any]", as_json: bool, columns: Mapping[str, str],
    wanted: Mapping[str, str | None] = MappingProxyType({}),
) -> None:  # fmt: skip
    from lbmux.api.protocol import to_json

    answer = _client(control).whole(request)
    lines = _matching(getattr(answer, request.command), wanted)
    if as_json:
        click.echo(to_json({**vars(answer), request.command: lines}))
    else:
        print_table(map(vars, lines), columns)


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested objects; names are joined with spaces: `tables flows rows`."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{before}{name} ")
        else:
            yield f"{before}{name}", inner
