"""`lbmux doctor`: diagnoses this node, and suggests fixes."""

import json
from pathlib import Path

import click

from lbmux.cli import options

COLOURS = {"ok": "green", "unchecked": "blue", "warning": "yellow", "fault": "red"}
FORMAT = 1


@click.command(name="doctor")
@click.option(
    "--control", type=options.PATH, envvar="LBMUX_CONTROL", show_envvar=True,
    help="Control socket. [default: the mux on this machine, else the agent, else the edge]",
)  # fmt: skip
@click.option("-c", "--config", type=options.PATH, help="Configuration file. [default: the daemon's]")
@click.option(
    "--role", type=click.Choice(["mux", "agent", "edge", "balancing-edge", "router", "host"]),
    help="Role of this machine. [default: the role of the daemon that runs here; without one, router]",
)  # fmt: skip
@click.option(
    "--peer",
    "peers",
    type=options.PATH,
    multiple=True,
    help="Control socket of another mux, to compare tables; may be repeated.",
)
@options.manager_access
@click.option("-q", "--quiet", is_flag=True, help="Print only findings that are not ok.")
@options.json
def command(
    control: Path | None, config: Path | None, role: str | None, peers: tuple[Path, ...],
    managers: tuple[str, ...], token_file: Path, manager_ca: Path, quiet: bool, as_json: bool,
) -> int:  # fmt: skip
    """Diagnose this node and suggest fixes.  The exit code is 1 if there is a fault.

    On a mux, doctor sends a probe through the tunnel to each backend, and ARP or ND requests for VIPs and next hops.
    Otherwise it only reads settings and counters, and changes nothing.  A check that cannot be made is reported as
    unchecked.  On a router or host without a daemon, -c gives the configuration.

    With --manager, doctor checks the whole pool instead: every node connected, the current revision in force
    everywhere, every certificate valid for a week, and equal tables on all muxes.
    """
    from lbmux.tools.doctor.node_state import NodeState
    from lbmux.tools.doctor.run_checks import examine

    if managers and not (control or config or role):
        from lbmux.cli.pool.manager_access import client
        from lbmux.tools.doctor.whole_pool import examine_pool

        examined, findings = "pool", examine_pool(client(managers, token_file, manager_ca))
    else:
        node = NodeState.here(role, control, config, peers)  # type: ignore[arg-type]
        examined, findings = node.role, examine(node)
    listed = [finding for finding in findings if not (quiet and finding.state == "ok")]
    if as_json:
        lines = [finding.as_json() for finding in listed]
        click.echo(json.dumps({"version": FORMAT, "role": examined, "findings": lines}))
    else:
        for finding in listed:
            state = click.style(f"{finding.state:9}", fg=COLOURS[finding.state])
            click.echo(f"{state} {click.style(f'{finding.check:13}', bold=True)} {finding.seen}")
            if finding.hint:
                click.echo(f"{'':23} hint: {finding.hint}")
    return int(any(finding.state == "fault" for finding in listed))
