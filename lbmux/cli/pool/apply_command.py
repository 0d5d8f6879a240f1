"""`lbmux apply` and `lbmux rollback`: change the pool's configuration at its manager."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lbmux.cli import options

if TYPE_CHECKING:
    from lbmux.manager.api_client import ApiClient
    from lbmux.manager.api_models import ApplyAnswer
    from lbmux.manager.documents import Impact

FORCE = click.option("--force", is_flag=True, help="Make the change even if it violates a guard rail.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
WAIT = click.option(
    "--wait", is_flag=True, help="Wait until the revision is in force on all connected nodes; fail if one refuses it."
)
WAIT_S = click.option(
    "--wait-s", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True,
    help="With --wait: timeout, in seconds.",
)  # fmt: skip
POLL_S = 0.05
MESSAGE = click.option("-m", "--message", default="", help="The reason; `lbmux show revisions` lists it.")


@click.command(name="apply")
@click.argument("file", type=options.PATH)
@click.option("--service", metavar="NAME", help="Apply only this service of FILE; leave the rest unchanged.")
@DRY_RUN
@MESSAGE
@FORCE
@click.option(
    "--canary", metavar="MUX", help="Put the revision in force on this mux first; continue or roll back after --soak."
)
@click.option(
    "--soak", "soak_s", type=options.DURATION, default="30s", show_default=True,
    help="With --canary: how long its drops, resets and unhealthy backends are compared with those of the other muxes.",
)  # fmt: skip
@WAIT
@WAIT_S
@options.manager_access
@options.json
def apply(
    file: Path, service: str | None, dry_run: bool, message: str, force: bool, canary: str | None, soak_s: float,
    wait: bool, wait_s: float, managers: tuple[str, ...], token_file: Path, manager_ca: Path,
    as_json: bool,
) -> None:  # fmt: skip
    """Make FILE (- is standard input) the pool's configuration.

    If FILE starts with a revision, as `lbmux config get` prints it, it must be the current one. A change that leaves a
    service without usable backends, removes a service, removes more than half of a service's backends, or moves more
    than 10 % of the live connections (set at the manager) needs --force. With --dry-run, muxes plan the change, and
    agents count connections.
    """
    from lbmux.cli.pool.manager_access import client
    from lbmux.config.loader import read
    from lbmux.errors import ConfigError, Problem
    from lbmux.manager.api_models import ApplyAnswer, ApplyRequest

    try:
        text = read(file).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(file, (Problem(None, "", f"cannot be read: {error}"),)) from error
    request = ApplyRequest(
        file=text, name=str(file), service=service, message=message, force=force, dry_run=dry_run, canary=canary,
        soak_s=soak_s,
    )  # fmt: skip
    manager = client(managers, token_file, manager_ca)
    answer = manager.post("/v1/config", request, ApplyAnswer)
    _print(answer, dry_run, as_json)
    if wait and answer.revision is not None:
        if canary is not None:
            _wait_for_canary(manager, answer.revision.number, soak_s + wait_s)
        _wait(manager, answer.revision.number, wait_s)


@click.command(name="rollback")
@click.argument("revision", type=click.IntRange(1), required=False)
@DRY_RUN
@MESSAGE
@FORCE
@WAIT
@WAIT_S
@options.manager_access
@options.json
def rollback(
    revision: int | None, dry_run: bool, message: str, force: bool, wait: bool, wait_s: float,
    managers: tuple[str, ...], token_file: Path, manager_ca: Path, as_json: bool,
) -> None:  # fmt: skip
    """Restore REVISION as a new revision. [default: the one before the current]"""
    from lbmux.cli.pool.manager_access import client
    from lbmux.manager.api_models import ApplyAnswer, RollbackRequest

    request = RollbackRequest(revision=revision, message=message, force=force, dry_run=dry_run)
    manager = client(managers, token_file, manager_ca)
    answer = manager.post("/v1/rollback", request, ApplyAnswer)
    _print(answer, dry_run, as_json)
    if wait and answer.revision is not None:
        _wait(manager, answer.revision.number, wait_s)


def _wait_for_canary(manager: "ApiClient", revision: int, wait_s: float) -> None:
    """Wait until a revision goes to all nodes; raise LbmuxError if it was rolled back."""
    import time

    from lbmux.errors import LbmuxError
    from lbmux.manager.api_models import RevisionsAnswer, StatusAnswer

    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        status = manager.get("/v1/status", StatusAnswer)
        if status.revision > revision:
            revisions = manager.get("/v1/revisions", RevisionsAnswer).revisions
            later = next(one.revision for one in reversed(revisions) if one.revision.number > revision)
            raise LbmuxError(f"revision {revision} was replaced by revision {later.number}: {later.message}")
        if status.revision == revision and status.canary is None:
            return
        time.sleep(POLL_S)
    raise LbmuxError(f"revision {revision} is still on its canary after {wait_s:g} s")


def _wait(manager: "ApiClient", revision: int, wait_s: float) -> None:
    """Wait until all connected nodes have a revision in force, and say so on standard error; raise LbmuxError."""
    import time

    from lbmux.errors import LbmuxError
    from lbmux.manager.api_models import NodesAnswer
    from lbmux.plurals import counted

    deadline, begun = time.monotonic() + wait_s, time.monotonic()
    while True:
        nodes = [one for one in manager.get("/v1/nodes", NodesAnswer).nodes if one.connected]
        refused = [f"{one.node}: {one.refused}" for one in nodes if one.refused and one.revision >= revision]
        if refused:
            raise LbmuxError(f"revision {revision} is refused by {'; '.join(refused)}")
        late = [one.node for one in nodes if one.in_force < revision]
        if not late:
            took = time.monotonic() - begun
            click.echo(f"revision {revision} is in force on {counted(len(nodes), 'node')} after {took:.1f} s", err=True)
            return
        if time.monotonic() >= deadline:
            raise LbmuxError(f"revision {revision} is not in force within {wait_s:g} s on {', '.join(late)}")
        time.sleep(POLL_S)


def _impact(impact: "Impact") -> Iterator[str]:
    """Yield what live nodes say about a change."""
    from lbmux.plurals import counted, noun

    for service, share in sorted(impact.slots.items()):
        yield f"service {service}: {share:.1%} of its slots move"
    if impact.connections:
        rest = f"; {impact.remaining} remain with removed backends" if impact.remaining else ""
        moves = noun(impact.moving, "moves", "move")
        text = f"{impact.moving} of {counted(impact.connections, 'live connection')} {moves}"
        yield f"{text} ({impact.moved:.1%}){rest}"
    for node, reason in sorted(impact.refused.items()):
        yield f"{node} would refuse it: {reason}"
    if impact.silent:
        yield f"no answer, and not counted: {', '.join(impact.silent)}"


def _print(answer: "ApplyAnswer", dry_run: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"version": 1, **answer.model_dump(mode="json")}))
        return
    for change in answer.changes:
        click.echo(change)
    for line in _impact(answer.impact) if answer.impact is not None else ():
        click.echo(line)
    for reason in answer.needs_force:
        click.echo(f"{'needs --force' if dry_run else 'forced'}: {reason}")
    if answer.revision is not None:
        click.echo(f"revision {answer.revision.number}")
    elif not answer.changes:
        click.echo("no differences")
