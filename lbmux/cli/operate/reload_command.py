"""`lbmux reload`: reloads the configuration of running daemons, and prints what changed."""

import json
from pathlib import Path

import click

from lbmux.cli import options


@click.command(name="reload")
@click.option(
    "--control",
    type=click.Path(path_type=Path),
    envvar="LBMUX_CONTROL",
    help="Control socket of the daemon. [default: the mux and the agent on this machine]",
)
@options.json
def command(control: Path | None, as_json: bool) -> None:
    """Reload the configuration of a running mux or agent, and print what changed.

    If the file is invalid, the running configuration stays in force; the reason is printed, and the exit code is 1.
    Overrides by command that take precedence over the file are listed.
    """
    from lbmux.api.control_client import ControlClient
    from lbmux.api.control_paths import default_path
    from lbmux.api.requests import Reload
    from lbmux.errors import ControlError

    paths = [control] if control else [path for path in map(default_path, ("mux", "agent")) if path.exists()]
    if not paths:
        raise ControlError(default_path("mux").parent, "no mux or agent runs here; use --control")
    for path in paths:
        answer = ControlClient(path).ask(Reload())
        if as_json:
            click.echo(json.dumps({"version": 1, "control": str(path), **vars(answer)}))
            continue
        for line in [*(answer.changes or ["nothing changed"]), *answer.overrides]:
            click.echo(f"{path}: {line}")
