"""`lbmux steer apply`: make a map a revision of the pool's manager, after a dry run."""

import json
from pathlib import Path

import click

from lbmux.cli import options
from lbmux.cli.operate.steer_command import CONFIG, as_plain, manager_maps, planned, show
from lbmux.cli.operate.steer_nodes_command import command
from lbmux.plurals import counted

__all__ = ["command"]


@command.command()
@CONFIG
@click.option("--dry-run", is_flag=True, help="Print how many users would move and to what latency; change nothing.")
@click.option("-m", "--message", default="", help="The reason; `lbmux show maps` lists it.")
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
    base, before = maps.current()
    inputs, plan = planned(config, before)
    applied = maps.propose(plan, base, message, dry_run=dry_run)
    if as_json:
        changed = {"groups_changed": applied.groups_changed} | ({} if dry_run else {"revision": applied.number})
        click.echo(json.dumps(as_plain(plan) | changed))
        return
    show(plan, inputs)
    would = "would be" if dry_run else "is"
    click.echo(f"map {applied.number} {would} the pool's: {counted(applied.groups_changed, 'group')} changed")
