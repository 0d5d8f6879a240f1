"""What an operator wants of backends, told to running daemons: `lbmux drain`, `enable`, `weight`, `add` and so on."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from lbmux.cli import options
from lbmux.cli.operate import completion_names

KEPT = "A restart keeps it so."
EVERYWHERE = "Tell each mux that has it, and its host's agent: each by a --control."
ENDS = re.compile(r"\[(?P<v6>[^\]]+)\](:(?P<port6>\d+))?|(?P<v4>[^:]+)(:(?P<port4>\d+))?|(?P<bare>.*)")
SERVICE = click.option(
    "--service", metavar="NAME", help="Only in this service. [default: in every one that has it]",
    shell_complete=completion_names.services,
)  # fmt: skip
BACKEND = click.argument("backend", shell_complete=completion_names.backends)
CONTROL = click.option(
    "--control", "controls", type=options.PATH, multiple=True, envvar="LBMUX_CONTROL", show_envvar=True,
    help="Control socket; may be repeated. [default: of the daemon that runs on this machine: mux, agent or edge]",
)  # fmt: skip


def _override(name: str, override: str | None, text: str) -> click.Command:
    @click.command(name=name, help=text)
    @BACKEND
    @SERVICE
    @CONTROL
    @options.json
    def command(backend: str, service: str | None, controls: tuple[Path, ...], as_json: bool) -> None:
        _tell(controls, as_json, "override", backend=backend, override=override, service=service)

    return command


drain = _override("drain", "drain", f"Give BACKEND no new flows; those that it has stay. {KEPT}")
enable = _override("enable", None, "Have BACKEND serve again: after drain, disable, or remove.")
disable = _override("disable", "disable", f"Take BACKEND out at once; its flows go to others. {KEPT}")
remove = _override(
    "remove", "remove",
    f"Remove BACKEND, of the file or added: it gets no new flows, and goes with the last that it has. {KEPT} "
    f"{EVERYWHERE} `lbmux enable` takes it back, `lbmux disable` does not wait for its flows.",
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
    """Give BACKEND another WEIGHT, its share of the new flows; without WEIGHT the file's again.

    Flows that there are stay. A restart keeps it so. Tell each mux: each by a --control.
    """
    _tell(controls, as_json, "weight", backend=backend, weight=weight, service=service)


@click.command(name="add")
@click.argument("service", shell_complete=completion_names.services)
@click.argument("dip", metavar="DIP[:PORT]")
@click.option("--name", help="Its name. [default: DIP:PORT]")
@click.option("--weight", type=int, help="Its share of the new flows. [default: 1]")
@click.option("--host", metavar="ADDRESS", help="Where its host agent takes the tunnel's packets. [default: the DIP]")
@click.option("--tunnel", metavar="KIND", help="How packets travel to its host. [default: as in the service]")
@click.option("--server-id", metavar="HEX", help="What names it in QUIC connection ids.")
@CONTROL
@options.json
def add(service: str, dip: str, controls: tuple[Path, ...], as_json: bool, **more: Any) -> None:
    """Add a backend to SERVICE until it is removed, or stands in the file: what the file may say of one, in options.

    A restart keeps it so. Tell its host's agent, and each mux: each by a --control, the agent's first.
    """
    address, port = _ends(dip)
    given = {"dip": address, "port": port, **more}
    backend = {name: value for name, value in given.items() if value is not None}
    _tell(controls, as_json, "add", service=service, backend=backend)


def _ends(text: str) -> tuple[str, int | None]:
    """An address (of IPv6 in brackets, where a port follows) and a port; whether it is one, the daemon says."""
    found = ENDS.fullmatch(text)
    assert found is not None  # the last alternative takes anything
    port = found["port6"] or found["port4"]
    return found["v6"] or found["v4"] or found["bare"] or "", None if port is None else int(port)


def _tell(controls: tuple[Path, ...], as_json: bool, command: str, **arguments: Any) -> None:
    """Each daemon, also after one that refused; the exit code is then 1.  JSON is a line a daemon."""
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
            _say(f"{path}: " if len(controls) > 1 else "", lines)
    for more in refused[1:]:
        click.echo(f"lbmux: {more}", err=True)
    if refused:
        raise refused[0]


def _say(where: str, lines: Sequence[dict[str, Any]]) -> None:
    for line in lines:
        click.echo(f"{where}{line['service']}/{line['backend']}: {line['state']}: {line['reason']}")
    if not lines:
        click.echo(f"{where}not here any more")
