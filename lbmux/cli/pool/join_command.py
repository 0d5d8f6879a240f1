"""`lbmux join`: gets a certificate for a node or manager with a one-time token."""

from pathlib import Path

import click

from lbmux.cli import options


@click.command(name="join")
@options.managers
@click.option(
    "--join-token-file", type=options.PATH, envvar="LBMUX_JOIN_TOKEN_FILE", show_envvar=True, required=True,
    help="File with the token that `lbmux manager join-token` printed; - is standard input.",
)  # fmt: skip
@click.option(
    "--address", "addresses", multiple=True,
    help="Name or address under which others reach a manager; may be repeated. [default: this machine's name]",
)  # fmt: skip
@options.state
def command(managers: tuple[str, ...], join_token_file: Path, addresses: tuple[str, ...], state: Path) -> None:
    """Join a pool: store a certificate, its key and the pool's CA in the --state directory.

    The token identifies the pool's CA, so the manager's certificate can be verified without any other file.
    """
    import socket
    import sys

    from lbmux.errors import SetupError
    from lbmux.manager.admission import join
    from lbmux.manager.identity import Identity

    if not managers:
        raise click.UsageError("give the manager with --manager or LBMUX_MANAGER")
    try:
        token = sys.stdin.read() if str(join_token_file) == "-" else join_token_file.read_text()
    except OSError as error:
        hint = "give the file with --join-token-file"
        raise SetupError(str(join_token_file), error.strerror or str(error), hint) from error
    answer = join(managers, token.strip(), Identity(state), addresses, socket.gethostname())
    click.echo(f"joined pool {answer.pool} as {answer.name}; certificate in {state}")
