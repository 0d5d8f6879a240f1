"""`lbmux doctor`: what is wrong with this machine's part of the pool, and how to mend it."""

import json
from pathlib import Path

import click

from lbmux.cli import options

COLOURS = {"ok": "green", "unchecked": "blue", "warning": "yellow", "fault": "red"}
FORMAT = 1


@click.command(name="doctor")
@click.option(
    "--control", type=options.PATH, envvar="LBMUX_CONTROL", show_envvar=True,
    help="Control socket. [default: of the mux that runs on this machine, else of the agent]",
)  # fmt: skip
@click.option("-c", "--config", type=options.PATH, help="Configuration file. [default: the daemon's]")
@click.option(
    "--role", type=click.Choice(["mux", "agent", "router", "host"]),
    help="What this machine is. [default: as the daemon that runs here; without one, a router]",
)  # fmt: skip
@click.option("--peer", "peers", type=options.PATH, multiple=True, help="Another mux's control socket, to compare.")
@click.option("-q", "--quiet", is_flag=True, help="Leave out what is fine.")
@click.option("-j", "--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    control: Path | None, config: Path | None, role: str | None, peers: tuple[Path, ...], quiet: bool, as_json: bool
) -> int:
    """Look at what goes wrong in practice, and say how to mend it.  Exit code 1 if there is a fault.

    A mux sends a probe through the tunnel to every backend, and who may have a VIP or is a next hop is asked on the
    link; else only settings and counters are read, nothing changes.  What could not be looked at is told as unchecked.
    A router or a host has no daemon to name the configuration: -c does.
    """
    from lbmux.tools.doctor.node_state import NodeState
    from lbmux.tools.doctor.run_checks import examine

    node = NodeState.here(role, control, config, peers)  # type: ignore[arg-type]
    found = [finding for finding in examine(node) if not (quiet and finding.state == "ok")]
    if as_json:
        lines = [finding.as_json() for finding in found]
        click.echo(json.dumps({"version": FORMAT, "role": node.role, "findings": lines}))
    else:
        for finding in found:
            state = click.style(f"{finding.state:9}", fg=COLOURS[finding.state])
            click.echo(f"{state} {click.style(f'{finding.check:13}', bold=True)} {finding.seen}")
            if finding.hint:
                click.echo(f"{'':23} to mend it: {finding.hint}")
    return int(any(finding.state == "fault" for finding in found))
