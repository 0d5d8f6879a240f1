"""`lbmux show` of what the pool's manager knows: revisions, maps, events, overrides, nodes, muxes, agents, edges."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lbmux.cli import options
from lbmux.cli.inspect.show_traffic_command import command

if TYPE_CHECKING:
    from lbmux.config.field_types import Model
    from lbmux.manager.documents import NodeReport, RouteOverride, StoredOverride

__all__ = ["command"]
OVERRIDE_COLUMNS = (
    "service", "backend", "vip", "node", "override", "by", "since", "until", "deadline", "reason",
)  # fmt: skip


@command.command()
@options.manager_access
@options.json
def revisions(managers: tuple[str, ...], token_file: Path, manager_ca: Path, as_json: bool) -> None:
    """Show the revisions of the pool's configuration, newest first, and where each is in force (--manager)."""
    from lbmux.cli.pool.manager_access import client, stamp
    from lbmux.cli.text_table import print_table
    from lbmux.manager.api_models import RevisionsAnswer

    answer = client(managers, token_file, manager_ca).get("/v1/revisions", RevisionsAnswer)
    if as_json:
        _print_json(answer)
        return
    lines = [
        {
            "revision": one.revision.number, "time": stamp(one.revision.time), "author": one.revision.author,
            "services": one.revision.services, "backends": one.revision.backends,
            "in force": f"{one.rollout.in_force} of {one.rollout.nodes}",
            "refused": "; ".join(f"{node}: {why}" for node, why in one.rollout.refused.items()) or None,
            "message": one.revision.message or None,
        }
        for one in answer.revisions
    ]  # fmt: skip
    names = ("revision", "time", "author", "services", "backends", "in force", "refused", "message")
    print_table(lines, {name: name for name in names})


@command.command()
@options.manager_access
@options.json
def maps(managers: tuple[str, ...], token_file: Path, manager_ca: Path, as_json: bool) -> None:
    """Show the maps of `lbmux steer`, newest first: how many users each moved, and their round trips (--manager)."""
    from lbmux.cli.pool.manager_access import client, stamp
    from lbmux.cli.text_table import print_table
    from lbmux.manager.map_handlers import MapsAnswer

    answer = client(managers, token_file, manager_ca).get("/v1/maps", MapsAnswer)
    if as_json:
        _print_json(answer)
        return
    lines = [
        {
            "map": one.number, "time": stamp(one.time), "author": one.author, "groups": one.groups,
            "changed": one.groups_changed, "users": round(one.users), "moved": round(one.moved),
            "round trip": f"{one.rtt_ms:.1f} ms",
            "before": None if one.rtt_ms_before is None else f"{one.rtt_ms_before:.1f} ms",
            "restores": one.restores, "message": one.message or None,
        }
        for one in answer.maps
    ]  # fmt: skip
    names = (
        "map", "time", "author", "groups", "changed", "users", "moved", "round trip", "before", "restores", "message",
    )  # fmt: skip
    print_table(lines, {name: name for name in names})


@command.command()
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Maximum number, newest first.")
@options.manager_access
@options.json
def events(limit: int, managers: tuple[str, ...], token_file: Path, manager_ca: Path, as_json: bool) -> None:
    """Show what happened in the pool, newest first: who did what, when, and from where (--manager)."""
    from lbmux.cli.pool.manager_access import client, stamp
    from lbmux.cli.text_table import print_table
    from lbmux.manager.api_models import EventsAnswer

    answer = client(managers, token_file, manager_ca).get("/v1/events", EventsAnswer, limit=limit)
    if as_json:
        _print_json(answer)
        return
    lines = [
        {
            "time": stamp(one.time), "kind": one.kind, "by": one.by, "from": one.origin or None,
            "revision": one.revision, "what": one.text,
        }
        for one in answer.events
    ]  # fmt: skip
    print_table(lines, {name: name for name in ("time", "kind", "by", "from", "revision", "what")})


@command.command()
@options.manager_access
@options.json
def overrides(managers: tuple[str, ...], token_file: Path, manager_ca: Path, as_json: bool) -> None:
    """Show the pool's overrides with author, time, reason and end (--manager)."""
    from lbmux.cli.pool.manager_access import client
    from lbmux.cli.text_table import print_table
    from lbmux.manager.api_models import OverridesAnswer
    from lbmux.manager.route_overrides import describe_announcement
    from lbmux.manager.stored_overrides import describe

    answer = client(managers, token_file, manager_ca).get("/v1/overrides", OverridesAnswer)
    if as_json:
        _print_json(answer)
        return
    lines = [
        *(_override_line(one, describe(one), service=one.service, backend=one.backend) for one in answer.overrides),
        *(
            _override_line(one, describe_announcement(one), vip=one.vip or "all", node=one.node or "all")
            for one in answer.routes
        ),
    ]
    print_table(lines, {name: name for name in OVERRIDE_COLUMNS})


def _override_line(stored: "StoredOverride | RouteOverride", what: str, **about: object) -> dict[str, object]:
    from lbmux.cli.pool.manager_access import stamp

    times = {name: getattr(stored, name, None) for name in ("since", "until", "deadline")}
    return {
        **dict.fromkeys(OVERRIDE_COLUMNS), **about, "override": what, "by": stored.by,
        **{name: None if time is None else stamp(time) for name, time in times.items()},
        "reason": stored.reason or None,
    }  # fmt: skip


def _nodes_command(name: str, role: str, text: str) -> None:
    @command.command(name=name, help=text)
    @options.manager_access
    @options.json
    def nodes(managers: tuple[str, ...], token_file: Path, manager_ca: Path, as_json: bool) -> None:
        from lbmux.cli.pool.manager_access import client
        from lbmux.cli.text_table import print_table
        from lbmux.manager.api_models import NodesAnswer

        answer = client(managers, token_file, manager_ca).get("/v1/nodes", NodesAnswer)
        selected = NodesAnswer(nodes=tuple(one for one in answer.nodes if role in ("", one.role)))
        if as_json:
            _print_json(selected)
            return
        lines = [{**one.model_dump(), **_node_line(one)} for one in selected.nodes]
        print_table(lines, {
            "node": "node", "role": "role", "revision": "in_force", "overrides": "overrides", "state": "state",
            "refusals": "refusals", "last seen": "last seen", "certificate until": "certificate",
            "version": "version", "manager": "manager",
        })  # fmt: skip


_nodes_command(
    "nodes", "", "Show the pool's nodes: the revision in force, whether it refuses the current one, when it was last"
    " seen, and until when its certificate is valid (--manager).",
)  # fmt: skip
_nodes_command("muxes", "mux", "Show the pool's muxes, as `lbmux show nodes` (--manager).")
_nodes_command("agents", "agent", "Show the pool's agents, as `lbmux show nodes` (--manager).")
_nodes_command("edges", "edge", "Show the pool's edges, as `lbmux show nodes` (--manager).")


def _node_line(one: "NodeReport") -> dict[str, str | None]:
    from lbmux.cli.pool.manager_access import stamp

    state = "in force" if one.in_force == one.revision else "behind"
    if one.refused:
        state = f"refuses revision {one.revision}: {one.refused}"
    until = one.certificate_until
    return {
        "state": state if one.connected else "gone", "last seen": stamp(one.seen),
        "certificate": None if until is None else stamp(until),
    }  # fmt: skip


def _print_json(answer: "Model") -> None:
    click.echo(json.dumps({"version": 1, **answer.model_dump(mode="json")}))
