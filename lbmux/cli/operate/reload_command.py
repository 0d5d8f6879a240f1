"""`lbmux reload`: has running daemons load their configuration anew, and prints what that changed."""

import json
from pathlib import Path

import click

from lbmux.cli import options


@click.command(name="reload")
@click.option(
    "--control",
    type=click.Path(path_type=Path),
    envvar="LBMUX_CONTROL",
    help="Control socket of the daemon. [default: of the mux and the agent that run on this machine]",
)
@options.json
def command(control: Path | None, as_json: bool) -> None:
    """Have a running mux or agent load its configuration anew.

    A file that cannot be used leaves the running configuration in force; the reason is printed, and the exit
    code is 1.  What was ordered by command and takes precedence over the file is named.
    """
    from lbmux.api.control_socket import ask, default_path
    from lbmux.errors import ControlError

    paths = [control] if control else [path for path in map(default_path, ("mux", "agent")) if path.exists()]
    if not paths:
        raise ControlError(default_path("mux").parent, "no mux or agent listens here: name one by --control")
    for path in paths:
        result = ask(path, "reload")
        said = {name: result.get(name, []) if isinstance(result, dict) else [] for name in ("changes", "overrides")}
        if as_json:
            click.echo(json.dumps({"version": 1, "control": str(path), **said}))
            continue
        for line in [*(said["changes"] or ["nothing changed"]), *said["overrides"]]:
            click.echo(f"{path}: {line}")
