"""`lbmux drain|enable|disable BACKEND`: what an operator wants of a backend, told to a running mux."""

from pathlib import Path
from typing import Any

import click

from lbmux.cli import options


def _command(name: str, order: str | None, text: str) -> click.Command:
    @click.command(name=name, help=text)
    @click.argument("backend")
    @click.option("--service", metavar="NAME", help="Only in this service. [default: in every one that has it]")
    @click.option(
        "--control", type=options.PATH, envvar="LBMUX_CONTROL", show_envvar=True,
        help="Control socket. [default: of the mux that runs on this machine]",
    )  # fmt: skip
    def command(backend: str, service: str | None, control: Path | None) -> None:
        from lbmux.control.control_socket import ask, default_path

        arguments: dict[str, Any] = {"backend": backend, "order": order, "service": service}
        for line in ask(control or default_path("mux"), "order", **arguments)["health"]:
            click.echo(f"{line['service']}/{line['backend']}: {line['state']}: {line['reason']}")

    return command


drain = _command(
    "drain", "drain", "Give BACKEND no new flows; those that it has stay. A restart of the mux keeps it so."
)
enable = _command("enable", None, "Have BACKEND serve again.")
disable = _command(
    "disable", "disable", "Take BACKEND out at once; its flows go to others. A restart of the mux keeps it so."
)
