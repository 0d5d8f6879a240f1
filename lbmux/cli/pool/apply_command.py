"""`lbmux apply` and `lbmux rollback`: change the pool's configuration at its manager."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lbmux.cli import options

if TYPE_CHECKING:
    from lbmux.manager.api_models import ApplyAnswer

FORCE = click.option("--force", is_flag=True, help="Make the change even if it violates a guard rail.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
MESSAGE = click.option("-m", "--message", default="", help="Why; `lbmux show revisions` lists it.")


@click.command(name="apply")
@click.argument("file", type=options.PATH)
@click.option("--service", metavar="NAME", help="Apply only this service of FILE; all else stays.")
@DRY_RUN
@MESSAGE
@FORCE
@options.manager_access
@options.json
def apply(
    file: Path, service: str | None, dry_run: bool, message: str, force: bool,
    managers: tuple[str, ...], token_file: Path, manager_ca: Path, as_json: bool,
) -> None:  # fmt: skip
    """Make FILE (- is standard input) the pool's configuration.

    If FILE starts with a revision, as `lbmux config get` prints it, it must be the current one. A change that leaves a
    service without usable backends, removes a service, or removes more than half of a service's backends needs --force.
    """
    from lbmux.cli.pool.manager_access import client
    from lbmux.errors import ConfigError, Problem
    from lbmux.manager.api_models import ApplyAnswer, ApplyRequest

    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(file, (Problem(None, "", f"cannot be read: {reason}"),)) from error
    request = ApplyRequest(file=text, name=str(file), service=service, message=message, force=force, dry_run=dry_run)
    _print(client(managers, token_file, manager_ca).post("/v1/config", request, ApplyAnswer), dry_run, as_json)


@click.command(name="rollback")
@click.argument("revision", type=click.IntRange(1), required=False)
@DRY_RUN
@MESSAGE
@FORCE
@options.manager_access
@options.json
def rollback(
    revision: int | None, dry_run: bool, message: str, force: bool,
    managers: tuple[str, ...], token_file: Path, manager_ca: Path, as_json: bool,
) -> None:  # fmt: skip
    """Restore REVISION as a new revision. [default: the one before the current]"""
    from lbmux.cli.pool.manager_access import client
    from lbmux.manager.api_models import ApplyAnswer, RollbackRequest

    request = RollbackRequest(revision=revision, message=message, force=force, dry_run=dry_run)
    _print(client(managers, token_file, manager_ca).post("/v1/rollback", request, ApplyAnswer), dry_run, as_json)


def _print(answer: "ApplyAnswer", dry_run: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"version": 1, **answer.model_dump(mode="json")}))
        return
    for change in answer.changes:
        click.echo(change)
    for reason in answer.needs_force:
        click.echo(f"{'needs --force' if dry_run else 'forced'}: {reason}")
    if answer.revision is not None:
        click.echo(f"revision {answer.revision.number}")
    elif not answer.changes:
        click.echo("no differences")
