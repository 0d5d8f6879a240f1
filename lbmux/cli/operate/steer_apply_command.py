"""`lbmux steer apply` and `rollback`: make a map a revision of the pool's manager, after a dry run."""

import json
from pathlib import Path

import click

from lbmux.cli import options
from lbmux.cli.operate.steer_command import CONFIG, as_plain, manager_maps, planned, read_inputs, show
from lbmux.cli.operate.steer_nodes_command import command
from lbmux.plurals import counted

__all__ = ["command"]

DRY_RUN = click.option(
    "--dry-run", is_flag=True, help="Print how many users would move and to what latency; change nothing."
)
MESSAGE = click.option("-m", "--message", default="", help="The reason; `lbmux show maps` lists it.")


@command.command()
@CONFIG
@DRY_RUN
@MESSAGE
@options.manager_access
@options.json
def apply(
    config: Path | None, dry_run: bool, message: str, managers: tuple[str, ...], token_file: Path, manager_ca: Path,
    as_json: bool,
) -> None:  # fmt: skip
    """Compute the next map from the one of the pool's manager, and make it the current one there.

    Servers that run `lbmux steer run --manager` publish it.  If another map became the current one meanwhile, nothing
    changes.
    """
    maps = manager_maps(managers, token_file, manager_ca)
    current = maps.current()
    inputs, plan = planned(config, None if current is None else current[1])
    applied = maps.propose(plan, 0 if current is None else current[0].number, message, dry_run=dry_run)
    if as_json:
        changed = {"groups_changed": applied.groups_changed} | ({} if dry_run else {"revision": applied.number})
        click.echo(json.dumps(as_plain(plan) | changed))
        return
    show(plan, inputs)
    would = "would be" if dry_run else "is"
    click.echo(f"map {applied.number} {would} the pool's: {counted(applied.groups_changed, 'group')} changed")


@command.command()
@click.argument("map_", metavar="[MAP]", type=click.IntRange(1), required=False)
@CONFIG
@DRY_RUN
@MESSAGE
@options.manager_access
@options.json
def rollback(
    map_: int | None, config: Path | None, dry_run: bool, message: str, managers: tuple[str, ...], token_file: Path,
    manager_ca: Path, as_json: bool,
) -> None:  # fmt: skip
    """Restore MAP, a number of `lbmux show maps`, as a new revision. [default: the one before the current]

    `lbmux steer run` keeps it until a PoP that it uses fails or `lbmux steer apply` makes another one.  A map that uses
    a PoP or data centre that is not healthy, or a data centre that drains, is refused.
    """
    from lbmux.steering.map_change import change

    maps = manager_maps(managers, token_file, manager_ca)
    revision, present = maps.read()
    number = revision.number - 1 if map_ is None else map_
    inputs = read_inputs(config)
    wanted = maps.read(number)[1]
    restored = change(inputs.steering, inputs.groups, inputs.latency, present, wanted, inputs.now)
    applied = maps.propose(restored, revision.number, message, restores=number, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps({"version": 1, **applied.model_dump()}))
        return
    would = "would be" if dry_run else "is"
    click.echo(
        f"map {applied.number} {would} the pool's, as map {number}: {restored.moved:.0f} of {restored.users:.0f} users "
        f"move, mean round trip {restored.rtt_ms:.1f} ms, {restored.rtt_ms_before or 0.0:.1f} ms before"
    )
