"""`lbmux show`: shows the state of a running mux, agent or edge, as a table or as JSON (-j)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from lbmux.cli import options
from lbmux.cli.inspect.node_answers import (
    ask_all,
    client_of,
    matching,
    node_of,
    print_json,
    print_list,
    print_node,
    same,
    with_node,
)
from lbmux.cli.operate import completion_names
from lbmux.cli.text_table import cell, print_table
from lbmux.cli.where import Where, where
from lbmux.plurals import counted

if TYPE_CHECKING:
    from lbmux.api.answers import Bgp, Counters, FlowLine
    from lbmux.api.control_client import ControlClient

FLOWS_SHOWN = 50


def _filter(*fields: str) -> Callable[[Any], Any]:
    """Add an option for each field; shells complete --service and --backend."""
    completions = {"service": completion_names.services, "backend": completion_names.backends}

    def decorate(command: Any) -> Any:
        for field in reversed(fields):
            text = f"Show only lines whose {field} matches; * and ? are wildcards."
            option = click.option(f"--{field}", metavar="PATTERN", help=text, shell_complete=completions.get(field))
            command = option(command)
        return command

    return decorate


@click.group(name="show")
def command() -> None:
    """Show the state of a running mux, agent or edge, or through a manager that of all muxes.

    With -j, the output is a JSON object, or one object per line for flows.  Each has a "version", currently 1, which
    changes when a field is removed or changes its meaning.  New fields may appear in the same version; ignore fields
    that you do not know.  Through a manager there is an object for each node, with its name as "node".
    """


@command.command()
@where()
@options.json
@_filter("service", "vip", "protocol")
@click.option("--ipvs", is_flag=True, help="Use the format of `ipvsadm -L -n`.")
def services(where: Where, as_json: bool, ipvs: bool, **wanted: str | None) -> None:
    """Show VIPs, their Maglev tables (muxes with the same file have the same digest), traffic and flows."""
    from lbmux.api.requests import GetBackends, GetHealth, GetRuntime, GetServices

    if ipvs:
        from lbmux.cli.inspect.ipvs_listing import listing

        client = client_of(where.one())
        own = matching(client.whole(GetServices()).services, wanted)
        backends, health = client.whole(GetBackends()).backends, client.whole(GetHealth()).health
        places = client.ask(GetRuntime()).tables["flows"].rows
        click.echo("\n".join(listing(own, backends, health, places)))
        return
    print_list(where, GetServices(), as_json, {
        "service": "service", "VIP": "vip", "protocol": "protocol", "port": "ports", "slots": "slots",
        "marked": "marked_slots", "digest": "digest", "up": "backends_up", "of": "backends", "packets": "packets",
        "bytes": "bytes", "new flows": "new_flows", "live flows": "live_flows",
    }, wanted)  # fmt: skip


@command.command()
@where()
@options.json
@_filter("service", "backend", "dip", "host", "state")
def backends(where: Where, as_json: bool, **wanted: str | None) -> None:
    """Show backends: state, weight, whether the next hop is known, traffic and flows."""
    from lbmux.api.requests import GetBackends

    print_list(where, GetBackends(), as_json, {
        "service": "service", "backend": "backend", "DIP": "dip", "port": "port", "host": "host",
        "weight": "weight", "state": "state", "reachable": "reachable", "packets": "packets", "bytes": "bytes",
        "new flows": "new_flows", "live flows": "live_flows", "trusted": "trusted_flows",
    }, wanted)  # fmt: skip


@command.command()
@where()
@options.json
def health(where: Where, as_json: bool) -> None:
    """Show the health of backends: up, down, draining, disabled, removing or removed, the reason, and since when."""
    from lbmux.api.requests import GetHealth

    print_list(where, GetHealth(), as_json, same("service", "backend", "state", "reason", "since", "drained"))


@command.command()
@where()
@options.json
def neighbours(where: Where, as_json: bool) -> None:
    """Show the hosts that a mux tunnels to, and the next hop to each."""
    from lbmux.api.requests import GetNeighbours

    columns = {name: name for name in ("host", "mac", "interface", "mtu", "backends")}
    print_list(where, GetNeighbours(), as_json, columns)


@command.command()
@where()
@options.json
@click.option("--all", "everything", is_flag=True, help="Include verdicts without packets.")
def counters(where: Where, as_json: bool, everything: bool) -> None:
    """Show counters of verdicts, of flow table look-ups, and of frames that the ring lost."""
    from lbmux.api.requests import GetCounters

    for node, answer in ask_all(where, lambda client: client.ask(GetCounters())):
        _print_counters(node, answer, as_json, everything)


def _print_counters(node: str, answer: "Counters", as_json: bool, everything: bool) -> None:
    if as_json:
        print_json(node, answer)
        return
    print_node(node)
    lines = [vars(line) for line in answer.verdicts if everything or line.packets]
    print_table(lines, same("verdict", "kind", "packets", "bytes"))
    others = {f"lookup {name}": count for name, count in answer.lookups.items()}
    for part in ("ring", "pending_neighbours", "slowpath"):
        others |= {f"{part} {name}": count for name, count in (getattr(answer, part) or {}).items()}
    print_table([{"counter": name, "count": count} for name, count in others.items()], same("counter", "count"))


@command.command()
@where()
@options.json
def runtime(where: Where, as_json: bool) -> None:
    """Show the process: driver, modes, versions, configuration, and the sizes and memory of tables."""
    from lbmux.api.protocol import to_plain
    from lbmux.api.requests import GetRuntime

    for node, answer in ask_all(where, lambda client: client.ask(GetRuntime())):
        if as_json:
            print_json(node, answer)
            continue
        print_node(node)
        lines = [{"what": name, "value": value} for name, value in _flat(to_plain(answer)) if name != "version"]
        print_table(lines, {"": "what", " ": "value"})


@command.command()
@where()
@options.json
def bgp(where: Where, as_json: bool) -> None:
    """Show the routes that a mux or an edge announces, its sessions, and why a session is not established."""
    from lbmux.api.requests import GetBgp

    for node, answer in ask_all(where, lambda client: client.ask(GetBgp())):
        if as_json:
            print_json(node, answer)
        else:
            print_node(node)
            _print_bgp(answer)


def _print_bgp(answer: "Bgp") -> None:
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
@where()
@options.json
@click.option(
    "--sort",
    default="",
    help="Sort by idle, source, port, backend or state; prefix - for descending order.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"Maximum number of flows; 0: all. [default: {FLOWS_SHOWN}; with -j all]",
)
@click.option("--count", is_flag=True, help="Print only the number of flows.")
@click.argument("words", metavar="[FILTER]...", nargs=-1)
def flows(where: Where, as_json: bool, sort: str, limit: int | None, count: bool, words: Sequence[str]) -> None:
    """Show live flows, as JSON Lines with -j.

    FILTER uses the grammar of tcpdump: src, dst, host, net, port, portrange, tcp, udp, and, or, not, ( ), and adds
    service NAME, backend NAME, state untrusted|trusted|closing, idle > SECONDS.
    """
    from lbmux.api.requests import CountFlows, GetFlows

    expression = " ".join(words)
    if count:
        for node, number in ask_all(where, lambda client: client.ask(CountFlows(expression))):
            if as_json:
                print_json(node, number)
            else:
                click.echo(f"{node}: {number.flows}" if node else number.flows)
        return
    most = (None if as_json else FLOWS_SHOWN) if limit is None else limit or None
    if as_json:
        for place in where.all():
            client = client_of(place, None)  # sorting millions of flows may take a daemon a long time
            for answer in client.stream(GetFlows(expression, sort, most)):
                for line in answer.flows:
                    print_json(node_of(place), line)
        return

    def some(client: "ControlClient") -> "tuple[list[FlowLine], int]":
        lines = [line for answer in client.stream(GetFlows(expression, sort, most)) for line in answer.flows]
        return lines, client.ask(CountFlows(expression)).flows if len(lines) == most else len(lines)

    answers = [*ask_all(where, some, None)]
    lines = [{"node": node, **_flow_line(line)} for node, (flow_lines, _) in answers for line in flow_lines]
    columns = same("protocol", "source", "destination", "service", "backend", "state", "idle s")
    print_table(lines, with_node(where, columns))
    total = sum(number for _, (_, number) in answers)
    if total > len(lines):
        click.echo(f"{len(lines)} of {counted(total, 'flow')}; --limit 0 shows all")


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


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested objects; names are joined with spaces: `tables flows rows`."""
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{before}{name} ")
        else:
            yield f"{before}{name}", inner
