"""`lbmux web`: a page about a pool, read only."""

from pathlib import Path

import click

from lbmux.cli import options


@click.command(name="web")
@click.option(
    "--control", "controls", type=options.PATH, multiple=True,
    help="Control socket of a mux; as often as there are muxes. [default: of the one on this machine]",
)  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8420, show_default=True, help="TCP port; 0: any free.")
@click.option(
    "--token", envvar="LBMUX_WEB_TOKEN", show_envvar=True,
    help="What visitors must show.  [default: none on this machine's own address, elsewhere one that is made up]",
)  # fmt: skip
@click.option(
    "--scoreboard", type=options.PATH, help="JSON file with the last result of `lbmux lab run -w`; may come later."
)
def command(controls: tuple[Path, ...], host: str, port: int, token: str | None, scoreboard: Path | None) -> None:
    """Serve a page that shows the pool live: traffic, services, Maglev tables, and what a packet would meet.

    It only reads.  The address to open is printed; off this machine with a token in it.
    """
    import secrets

    from lbmux.api.control_socket import default_path
    from lbmux.daemons.process import run
    from lbmux.tools.results import read_result
    from lbmux.tools.web.web_access import is_local
    from lbmux.tools.web.web_server import Site, serve

    if token is not None and not (token and token.isascii() and token.isprintable()):
        raise click.UsageError("--token should be of visible ASCII characters: a header and a cookie carry it")
    if scoreboard is not None and scoreboard.exists():  # one that comes later is shown then
        read_result(scoreboard)
    if token is None and not is_local(host):
        token = secrets.token_urlsafe(16)
    run(serve(Site(controls or (default_path("mux"),), scoreboard), host, port, token))
