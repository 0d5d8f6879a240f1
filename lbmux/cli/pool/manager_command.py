"""`lbmux manager`: runs a manager, makes a pool, and takes care of its store and tokens."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lbmux.cli import options

if TYPE_CHECKING:
    from lbmux.manager.store.open_store import EtcdTls
    from lbmux.manager.store.store import Store

Result = TypeVar("Result")
STORE = "DIRECTORY|etcd://HOST:PORT,..."


def store_options(command: options.Decorated) -> options.Decorated:
    """Add the options that name the store."""
    for name, what in (("key", "Key of the client's"), ("cert", "Client's"), ("ca", "CA of the members'")):
        command = click.option(
            f"--etcd-{name}", type=options.PATH, envvar=f"LBMUX_ETCD_{name.upper()}", show_envvar=True,
            help=f"{what} certificate for etcd, in PEM.",
        )(command)  # fmt: skip
    return click.option(
        "--store", metavar=STORE, envvar="LBMUX_STORE", show_envvar=True, default="/var/lib/lbmux",
        show_default=True, help="Store of the pool's state: a directory if there is one manager, or an etcd cluster.",
    )(command)  # fmt: skip


@click.group(name="manager", invoke_without_command=True)
@store_options
@options.state
@click.option(
    "--listen", metavar="[HOST:]PORT", default="7443", show_default=True, envvar="LBMUX_LISTEN", show_envvar=True,
    callback=options.check_endpoint, help="Address of the API and the nodes. [default HOST: all addresses]",
)  # fmt: skip
@click.option(
    "--advertise", metavar="URL", envvar="LBMUX_ADVERTISE", show_envvar=True,
    help="URL under which others reach this manager. [default: https://NAME:PORT]",
)  # fmt: skip
@click.option(
    "--most-moved", type=click.FloatRange(0, 100), metavar="PERCENT", default=10.0, show_default=True,
    envvar="LBMUX_MOST_MOVED", show_envvar=True,
    help="Share of the live connections that a change may move without --force.",
)  # fmt: skip
@click.pass_context
def command(
    context: click.Context, /, store: str, state: Path, listen: str, advertise: str | None, most_moved: float,
    **etcd: Path | None,
) -> None:  # fmt: skip
    """Run a manager: it holds the pool's configuration and overrides, and serves them, and a page about the pool.

    `lbmux manager init` makes the pool, once. With a directory as --store the pool has one manager; with etcd it may
    have several, one of which is primary.
    """
    if context.invoked_subcommand is not None:
        return
    from lbmux.daemons.manager_daemon import ManagerOptions, serve
    from lbmux.daemons.process import run
    from lbmux.tools.web.manager_page import add_page

    settings = ManagerOptions(
        store=store, state=state, listen=listen, advertise=advertise, etcd_tls=_tls(etcd), most_moved=most_moved / 100
    )
    run(serve(settings, add_page))


@command.command()
@store_options
@options.state
@click.option("--name", help="Name of this manager. [default: this machine's]")
@click.option(
    "--address", "addresses", multiple=True,
    help="Further name or address under which others reach this manager; may be repeated.",
)  # fmt: skip
def init(store: str, state: Path, name: str | None, addresses: tuple[str, ...], **etcd: Path | None) -> None:
    """Make a pool: its CA, this manager's certificate, and an admin's token.

    The CA's key is STATE/ca.key. It stays on this manager; copy it to another one only if that one is to admit and
    renew nodes too.
    """
    import os
    import socket

    from lbmux.manager.admission import make_pool
    from lbmux.manager.identity import Identity

    name = name or socket.gethostname()
    result = _with_store(store, etcd, lambda one: make_pool(one, Identity(state), name, addresses, time.time()))
    pool, token = result
    file = state / "admin.token"
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
        opened.write(f"{token}\n")
    click.echo(f"pool {pool}\nadmin's token: {file}\nCA's certificate: {state / 'ca.crt'}")


@command.command()
@click.argument("file", type=options.PATH)
@store_options
@options.manager_access
def backup(
    file: Path, store: str, managers: tuple[str, ...], token_file: Path, manager_ca: Path,
    **etcd: Path | None,
) -> None:  # fmt: skip
    """Write the pool's state to FILE: from a running manager with --manager, else from the store.

    The CA's key is not part of it.
    """
    import os

    from lbmux.cli.pool.manager_access import client
    from lbmux.manager.store.backup import back_up

    if managers:
        text = client(managers, token_file, manager_ca).read("/v1/backup")
    else:
        text = _with_store(store, etcd, back_up)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
        opened.write(text)
    click.echo(f"{file}: {len(text.splitlines()) - 1} entries")


@command.command()
@click.argument("file", type=options.PATH)
@store_options
def restore(file: Path, store: str, **etcd: Path | None) -> None:
    """Write the state in FILE into an empty store, with a higher epoch."""
    from lbmux.errors import SetupError
    from lbmux.manager.store.backup import restore as write

    try:
        text = file.read_bytes()
    except OSError as error:
        raise SetupError(str(file), error.strerror or str(error), "give a file of `lbmux manager backup`") from error
    count = _with_store(store, etcd, lambda one: write(one, text, time.time()))
    click.echo(f"{store}: {count} entries restored")


@command.command()
@click.argument("target", metavar=STORE)
@store_options
def migrate(target: str, store: str, **etcd: Path | None) -> None:
    """Copy the state from --store into another, empty store; stop all managers before.

    The options for etcd apply to both stores.
    """
    from lbmux.manager.store.backup import back_up
    from lbmux.manager.store.backup import restore as write

    text = _with_store(store, etcd, back_up)
    count = _with_store(target, etcd, lambda one: write(one, text, time.time()))
    click.echo(f"{target}: {count} entries; start managers with --store {target}")


@command.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["viewer", "operator", "admin"]), default="viewer", show_default=True)
@click.option("--service", "services", multiple=True, help="Allow changes to this service only; may be repeated.")
@click.option(
    "--for", "for_s", type=options.DURATION, help="How long the token is valid. [default: until it is revoked]"
)
@options.manager_access
def token(
    name: str, role: str, services: tuple[str, ...], for_s: float | None,
    managers: tuple[str, ...], token_file: Path, manager_ca: Path,
) -> None:  # fmt: skip
    """Make a token for NAME, a person or a program, and print it.

    A viewer sees everything, an operator changes configuration and overrides, an admin also makes tokens and backups.
    """
    from lbmux.cli.pool.manager_access import client
    from lbmux.manager.api_models import TokenAnswer, TokenRequest

    request = TokenRequest.model_validate({"name": name, "role": role, "services": services, "for_s": for_s})
    click.echo(client(managers, token_file, manager_ca).post("/v1/tokens", request, TokenAnswer).token)


@command.command()
@options.manager_access
@options.json
def tokens(managers: tuple[str, ...], token_file: Path, manager_ca: Path, as_json: bool) -> None:
    """List tokens, without their secrets."""
    from lbmux.cli.pool.manager_access import client, stamp
    from lbmux.cli.text_table import print_table
    from lbmux.manager.api_models import TokensAnswer

    answer = client(managers, token_file, manager_ca).get("/v1/tokens", TokensAnswer)
    if as_json:
        click.echo(json.dumps({"version": 1, **answer.model_dump(mode="json")}))
        return
    lines: list[dict[str, Any]] = [
        {
            "id": one.id, "name": one.name, "role": one.role, "services": list(one.services) or None,
            "made": stamp(one.created), "until": None if one.until is None else stamp(one.until),
        }
        for one in answer.tokens
    ]  # fmt: skip
    print_table(lines, {name: name for name in ("id", "name", "role", "services", "made", "until")})


@command.command()
@click.argument("token_id", metavar="ID")
@options.manager_access
def revoke(token_id: str, managers: tuple[str, ...], token_file: Path, manager_ca: Path) -> None:
    """Revoke a token, by its ID."""
    from lbmux.cli.pool.manager_access import client
    from lbmux.manager.api_models import Done

    client(managers, token_file, manager_ca).delete("/v1/tokens", Done, id=token_id)
    click.echo(f"token {token_id} revoked")


@command.command(name="join-token")
@click.argument("name")
@click.option("--role", type=click.Choice(["node", "manager"]), default="node", show_default=True)
@click.option(
    "--for", "for_s", type=options.DURATION, default="1h", show_default=True, help="How long the token is valid."
)
@options.manager_access
def join_token(
    name: str, role: str, for_s: float, managers: tuple[str, ...], token_file: Path, manager_ca: Path
) -> None:
    """Print a token with which the node NAME joins once."""
    from lbmux.cli.pool.manager_access import client
    from lbmux.manager.api_models import JoinTokenRequest, TokenAnswer

    request = JoinTokenRequest.model_validate({"name": name, "role": role, "for_s": for_s})
    click.echo(client(managers, token_file, manager_ca).post("/v1/join-tokens", request, TokenAnswer).token)


def _tls(etcd: dict[str, Path | None]) -> "EtcdTls | None":
    from lbmux.manager.store.open_store import EtcdTls

    paths = [etcd["etcd_ca"], etcd["etcd_cert"], etcd["etcd_key"]]
    files = [path for path in paths if path is not None]
    if len(files) not in (0, 3):
        raise click.UsageError("--etcd-ca, --etcd-cert and --etcd-key are given together")
    return EtcdTls(*files) if files else None


def _with_store(where: str, etcd: dict[str, Path | None], work: "Callable[[Store], Awaitable[Result]]") -> Result:
    """Open a store, do the work, and close it."""
    from lbmux.manager.store.open_store import open_store

    async def run() -> Result:
        async with open_store(where, _tls(etcd)) as store:
            return await work(store)

    return asyncio.run(run())
