"""`lbmux steer`: compute the map from client groups to PoPs, explain it, and publish it by DNS."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lbmux.cli import options
from lbmux.cli.text_table import print_table
from lbmux.plurals import counted, noun

if TYPE_CHECKING:
    from lbmux.addresses import Address
    from lbmux.steering.explain import Explanation
    from lbmux.steering.inputs import Inputs
    from lbmux.steering.steering_map import SteeringMap
    from lbmux.steering.steering_plan import Plan
    from lbmux.tools.manager_maps import ManagerMaps

CONFIG = click.option(
    "-c", "--config", type=options.PATH, envvar="LBMUX_STEERING", show_envvar=True, help="Configuration, steering.yaml."
)
PRESENT = click.option(
    "--present", type=options.PATH, help="The map in force. [default: none; no user counts as moved]"
)
LISTEN = click.option(
    "--listen", type=options.ADDRESS, multiple=True, required=True, help="Address of the server; may be repeated."
)
PORT = click.option("--port", type=click.IntRange(1, 65535), default=53, show_default=True, help="Port of the server.")


@click.group(name="steer", invoke_without_command=True)
@CONFIG
@PRESENT
@click.option("-o", "--output", type=options.PATH, help="Write the map to this file. [default: a dry run]")
@options.json
@click.pass_context
def command(context: click.Context, config: Path, present: Path | None, output: Path | None, as_json: bool) -> None:
    """Compute which PoP each group of clients should use, and print how many users move.

    The map minimises users' round-trip times within the capacities of healthy PoPs; a user moves only for a gain of
    more than `move_cost_ms`.  Without -o, the map is computed but not written.  --present and -o may be the same file.
    """
    if context.invoked_subcommand is not None:
        context.obj = config, present
        return
    inputs, plan = planned(config, _read(present))
    if output is not None:
        from lbmux.steering.steering_map import write

        write(output, plan.steering_map)
    if as_json:
        click.echo(json.dumps(as_plain(plan)))
    else:
        show(plan, inputs)


def manager_maps(managers: "tuple[str, ...]", token_file: Path, manager_ca: Path) -> "ManagerMaps":
    """Return the maps at the pool's manager."""
    from lbmux.cli.pool.manager_access import client
    from lbmux.tools.manager_maps import ManagerMaps

    return ManagerMaps(client(managers, token_file, manager_ca))


@command.command(name="explain")
@click.argument("prefix")
@CONFIG
@PRESENT
@options.json
@click.pass_context
def explain_(context: click.Context, prefix: str, config: Path, present: Path | None, as_json: bool) -> None:
    """Explain which PoP the clients of PREFIX (or one address) go to: latencies, samples, their age and interval.

    A group without samples of its own is marked with what its latencies are estimated from.
    """
    from dataclasses import asdict
    from ipaddress import ip_network

    from lbmux.steering.explain import explain

    above = context.obj or (None, None)
    try:
        wanted = ip_network(prefix, strict=False)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    inputs, plan = planned(config or above[0], _read(present or above[1]))
    explanation = explain(wanted, inputs.steering, inputs.groups, inputs.latency, plan, inputs.now)
    if as_json:
        click.echo(json.dumps({"version": 1, **asdict(explanation)}))
    else:
        _print_explanation(explanation)


@command.command()
@click.argument("map_", metavar="MAP", type=options.PATH)
@click.argument("directory", type=options.PATH)
@LISTEN
@PORT
def publish(map_: Path, directory: Path, listen: "tuple[Address, ...]", port: int) -> None:
    """Publish MAP by gdnsd, a DNS server that answers by client subnet; its files are in DIRECTORY.

    gdnsd checks the new files and hands its sockets to a new process.  If it refuses them, the previous map stays in
    force.  Start it with `gdnsd -c DIRECTORY/current start`; it runs without lbmux.
    """
    from lbmux.steering.steering_map import read
    from lbmux.tools.publish_dns import publish

    number = publish(read(map_), directory, listen, port)
    click.echo(f"{directory}: map {number} is in force")


@command.command()
@click.argument("directory", type=options.PATH)
@CONFIG
@LISTEN
@PORT
@options.manager_access
@click.pass_context
def run(
    context: click.Context, directory: Path, config: Path | None, listen: "tuple[Address, ...]", port: int,
    managers: tuple[str, ...], token_file: Path, manager_ca: Path,
) -> None:  # fmt: skip
    """Steer until it is stopped: probe PoPs, compute a map after each change, publish it, set weights of proxies.

    The map in force is in DIRECTORY, as with `publish`.  A map is computed when a PoP's health or a file changes.
    Requests leave a data centre that drains by at most 10 % a second.  When this ends, the last map and the last
    weights stay.  With --manager each map becomes a revision there first, and maps that others apply are published too;
    without -c, only those.
    """
    import asyncio

    from lbmux.daemons import process
    from lbmux.tools.steer_loop import Server, SteerLoop

    chosen = config or (context.obj or (None, None))[0]
    if chosen is None and not managers:
        raise click.UsageError("give the configuration with -c, or a manager whose maps to publish with --manager")
    maps = manager_maps(managers, token_file, manager_ca) if managers else None

    async def steer() -> None:
        stop, is_ready = process.stop_event(), asyncio.Event()
        loop = asyncio.create_task(SteerLoop(chosen, Server(directory, listen, port), maps).run(stop, is_ready))
        await asyncio.wait({loop, asyncio.create_task(is_ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
        process.notify("READY=1")
        await loop

    process.run(steer())


def _read(present: Path | None) -> "SteeringMap | None":
    from lbmux.steering.steering_map import read

    return read(present) if present is not None and present.exists() else None


def read_inputs(config: Path | None) -> "Inputs":
    import time

    from lbmux.steering.inputs import read

    if config is None:
        raise click.UsageError("give the configuration with -c")
    return read(config, time.time())


def planned(config: Path | None, before: "SteeringMap | None") -> "tuple[Inputs, Plan]":
    from lbmux.steering.steering_plan import plan

    inputs = read_inputs(config)
    return inputs, plan(inputs.steering, inputs.groups, inputs.latency, before, inputs.now)


def as_plain(plan: "Plan") -> dict[str, Any]:
    from dataclasses import asdict

    fields = ("users", "moved", "moved_from_dead", "rtt_ms", "rtt_ms_before", "gap", "overload")
    summary = {name: getattr(plan, name) for name in fields}
    map_json = json.loads(plan.steering_map.to_json())
    return {"version": 1, **summary, "pops": [asdict(pop) for pop in plan.pops], "map": map_json}


def show(plan: "Plan", inputs: "Inputs") -> None:
    estimated = len(plan.steering_map.estimated)
    before = "" if plan.rtt_ms_before is None else f", {plan.rtt_ms_before:.1f} ms before"
    groups = counted(len(inputs.groups.prefixes), "group")
    click.echo(
        f"{counted(round(plan.users), 'user')} in {groups} ({estimated} estimated); mean round trip "
        f"{plan.rtt_ms:.1f} ms{before}; at most {plan.gap:.1%} above the optimum"
    )
    if plan.rtt_ms_before is not None:
        moved = round(plan.moved)
        click.echo(
            f"{counted(moved, 'user')} {noun(moved, 'moves', 'move')} ({plan.moved / plan.users:.2%}), "
            f"{plan.moved_from_dead:.0f} of them from PoPs that are not healthy"
        )
    if plan.overload:
        click.echo(f"overloaded: all PoPs together are short of capacity by {plan.overload:.0f}")
    print_table(
        [
            {"pop": pop.name, "users": round(pop.users), "before": round(pop.users_before), "load": round(pop.load),
             "capacity": round(pop.capacity), "full": f"{pop.load / pop.capacity:.0%}" if pop.capacity else "down",
             "price": f"{pop.price_ms:.1f} ms" if pop.price_ms else None}
            for pop in plan.pops
        ],
        {"PoP": "pop", "users": "users", "before": "before", "load": "load", "capacity": "capacity", "used": "full",
         "price": "price"},
    )  # fmt: skip


def _print_explanation(explanation: "Explanation") -> None:
    source = explanation.source if explanation.source == "measured" else f"estimated, from {explanation.source}"
    resolver = f", resolver {explanation.resolver}" if explanation.resolver else ""
    click.echo(f"{explanation.group}: {explanation.users:.0f} users{resolver}; latencies: {source}")
    print_table(
        [
            {"pop": one.pop, "share": f"{one.share:.0%}" if one.share else None, "rtt": f"{one.rtt_ms:.1f} ms",
             "interval": None if one.low_ms is None else f"{one.low_ms:.1f} to {one.high_ms:.1f}",
             "samples": one.samples, "age": None if one.age_s is None else f"{one.age_s:.0f} s",
             "full": f"+{one.full_ms:.1f} ms" if one.full_ms else None, "health": "up" if one.healthy else "down"}
            for one in explanation.pops
        ],
        {"PoP": "pop", "users": "share", "round trip": "rtt", "95 % interval": "interval", "samples": "samples",
         "age": "age", "full": "full", "health": "health"},
    )  # fmt: skip
