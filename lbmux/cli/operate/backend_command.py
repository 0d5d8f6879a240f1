"""Overrides of backends at running daemons: `lbmux drain`, `enable`, `disable`, `remove`, `weight` and `add`."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from lbmux.cli import options
from lbmux.cli.operate import completion_names

PERSISTENT = "This survives a restart."
EVERYWHERE = "Give a --control for each mux that has it, and for its host's agent."
ENDS = re.compile(r"\[(?P<v6>[^\]]+)\](:(?P<port6>\d+))?|(?P<v4>[^:]+)(:(?P<port4>\d+))?|(?P<bare>.*)")
SERVICE = click.option(
    "--service", metavar="NAME", help="Only in this service. [default: in all services that have it]",
    shell_complete=completion_names.services,
)  # fmt: skip
BACKEND = click.argument("backend", shell_complete=completion_names.backends)
CONTROL = click.option(
    "--control", "controls", type=options.PATH, multiple=True, envvar="LBMUX_CONTROL", show_envvar=True,
    help="Control socket; may be repeated. [default: the daemon on this machine: mux, agent or edge]",
)  # fmt: skip


def _override(name: str, override: str | None, text: str) -> click.Command:
    @click.command(name=name, help=text)
    @BACKEND
    @SERVICE
    @CONTROL
    @options.json
    def command(backend: str, service: str | None, controls: tuple[Path, ...], as_json: bool) -> None:
        _send(controls, as_json, "override", backend=backend, override=override, service=service)

    return command


drain = _override("drain", "drain", f"Drain BACKEND: it keeps its flows and gets no new ones. {PERSISTENT}")
enable = _override("enable", None, "Enable BACKEND again after drain, disable or remove.")
disable = _override("disable", "disable", f"Disable BACKEND at once; its flows move to other backends. {PERSISTENT}")
remove = _override(
    "remove", "remove",
    f"Remove BACKEND, whether it is in the file or was added: it gets no new flows, and goes when its last flow has "
    f"ended. {PERSISTENT} {EVERYWHERE} `lbmux enable` brings it back; `lbmux disable` does not wait for its flows.",
)  # fmt: skip


@click.command(name="weight")
@BACKEND
@click.argument("weight", type=click.IntRange(0, 65535), required=False)
@SERVICE
@CONTROL
@options.json
def weight(
    backend: str, weight: int | None, service: str | None, controls: tuple[Path, ...], as_json: bool
) -> None:  # fmt: skip
    """Set the WEIGHT of BACKEND, its share of new flows; without WEIGHT, the file's weight applies again.

    Existing flows stay. This survives a restart. Give a --control for each mux.
    """
    _send(controls, as_json, "weight", backend=backend, weight=weight, service=service)


@click.command(name="add")
@click.argument("service", shell_complete=completion_names.services)
@click.argument("dip", metavar="DIP[:PORT]")
@click.option("--name", help="Name. [default: DIP:PORT]")
@click.option("--weight", type=int, help="Share of new flows. [default: 1]")
@click.option(
    "--host", metavar="ADDRESS", help="Address of its host's agent, where the tunnel ends. [default: the DIP]"
)
@click.option("--tunnel", metavar="KIND", help="Encapsulation of packets to its host. [default: the service's]")
@click.option("--server-id", metavar="HEX", help="Server ID in QUIC connection IDs.")
@CONTROL
@options.json
def add(service: str, dip: str, controls: tuple[Path, ...], as_json: bool, **more: Any) -> None:
    """Add a backend to SERVICE until it is removed or the file has it. The options correspond to the file's fields.

    This survives a restart. Give a --control for its host's agent, then one for each mux.
    """
    address, port = _ends(dip)
    given = {"dip": address, "port": port, **more}
    backend = {name: value for name, value in given.items() if value is not None}
    _send(controls, as_json, "add", service=service, backend=backend)


def _ends(text: str) -> tuple[str, int | None]:
    """Split text into address and port; an IPv6 address before a port is in brackets.  The daemon validates both."""
    found = ENDS.fullmatch(text)
    assert found is not None  # the last alternative matches anything
    port = found["port6"] or found["port4"]
    return found["v6"] or found["v4"] or found["bare"] or "", None if port is None else int(port)


def _send(controls: tuple[Path, ...], as_json: bool, command: str, **arguments: Any) -> None:
    """Send a request to each daemon, even after one refuses; raise the first ControlError.  JSON has a line each."""
    from lbmux.api.control_socket import ask, meant_path
    from lbmux.errors import ControlError

    refused: list[ControlError] = []
    for path in controls or (meant_path(None),):
        try:
            lines = ask(path, command, **arguments)["health"]
        except ControlError as error:
            refused.append(error)
            if as_json:
                click.echo(json.dumps({"version": 1, "control": str(path), "error": error.reason}))
            continue
        if as_json:
            click.echo(json.dumps({"version": 1, "control": str(path), "health": lines}))
        else:
            _print(f"{path}: " if len(controls) > 1 else "", lines)
    for more in refused[1:]:
        click.echo(f"lbmux: {more}", err=True)
    if refused:
        raise refused[0]


def _print(where: str, lines: Sequence[dict[str, Any]]) -> None:
    for line in lines:
        click.echo(f"{where}{line['service']}/{line['backend']}: {line['state']}: {line['reason']}")
    if not lines:
        click.echo(f"{where}no longer configured")
