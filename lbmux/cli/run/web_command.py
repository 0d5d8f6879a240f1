"""`lbmux web`: serves a web page about a pool."""

from pathlib import Path

import click

from lbmux.cli import options
from lbmux.cli.where import Where, where


@click.command(name="web")
@where(repeated=True, default="the mux on this machine")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8420, show_default=True, help="TCP port; 0: any free port."
)
@click.option(
    "--token", envvar="LBMUX_WEB_TOKEN", show_envvar=True,
    help="Token that browsers must present. [default: a random one with --actions or beyond loopback, else none]",
)  # fmt: skip
@click.option(
    "--scoreboard", type=options.PATH, help="JSON file with the last result of `lbmux lab run -w`; need not exist yet."
)
@click.option(
    "--actions", is_flag=True,
    help="Let visitors drain, enable, disable and reweight backends, and at a manager apply a configuration. They need"
    " the token.",
)  # fmt: skip
def command(
    where: Where, host: str, port: int, token: str | None, scoreboard: Path | None, actions: bool
) -> None:  # fmt: skip
    """Serve a web page that shows the pool live: traffic, services, Maglev tables, and explanations of packets.

    The page is read-only unless --actions is given.  The URL to open is printed, with the token if there is one.
    """
    import secrets

    from lbmux.daemons.process import run
    from lbmux.tools.results import read_result
    from lbmux.tools.web.web_access import is_local
    from lbmux.tools.web.web_server import Site, serve

    if token is not None and not (token and token.isascii() and token.isprintable()):
        raise click.UsageError("--token must consist of printable ASCII characters")
    if scoreboard is not None and scoreboard.exists():  # a file that appears later is read then
        read_result(scoreboard)
    if token is None and (actions or not is_local(host)):
        token = secrets.token_urlsafe(16)
    run(serve(Site(where.all("mux"), scoreboard, actions=actions), host, port, token))
