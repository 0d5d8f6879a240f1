"""Overrides of backends: `lbmux drain`, `enable`, `disable`, `remove`, `weight` and `add`.

They go to the pool's manager where one is configured, and else to the daemon on this machine.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from lbmux.cli import options
from lbmux.cli.operate import completion_names

if TYPE_CHECKING:
    from lbmux.addresses import Address
    from lbmux.api.answers import BackendHealth, Overridden
    from lbmux.api.requests import Request
    from lbmux.backends.overrides import OverriddenState

PERSISTENT = "This survives a restart."
EVERYWHERE = "Without a manager, give a --control for each mux that has it, and for its host's agent."
WHOLE = "Without BACKEND, --service NAME means all backends that this service has at that time."
ENDS = re.compile(r"\[(?P<v6>[^\]]+)\](:(?P<port6>\d+))?|(?P<v4>[^:]+)(:(?P<port4>\d+))?|(?P<bare>.*)")
SERVICE = click.option(
    "--service", metavar="NAME",
    help="Only in this service, and in those that share its pool. [default: in all services that have it]",
    shell_complete=completion_names.services,
)  # fmt: skip
BACKEND = click.argument("backend", shell_complete=completion_names.backends)
BACKEND_OR_ALL = click.argument("backend", shell_complete=completion_names.backends, required=False)
Action = Literal["drain", "disable", "remove", "enable"]
MANAGED = ("managers", "token_file", "manager_ca", "force", "reason", "for_s")
CONTROL = click.option(
    "--control", "controls", type=options.PATH, multiple=True, envvar="LBMUX_CONTROL", show_envvar=True,
    help="Control socket; may be repeated. [default: the daemon on this machine: mux, agent or edge]",
)  # fmt: skip


def _managed(command: options.Decorated) -> options.Decorated:
    """Add the options of an override that the pool's manager stores."""
    command = options.manager_access(command)
    command = click.option(
        "--force", is_flag=True, help="At the manager: make the change even if it violates a guard rail."
    )(command)
    command = click.option("--reason", default="", help="At the manager: the reason; `lbmux show overrides` lists it.")(
        command
    )
    return click.option(
        "--for", "for_s", type=options.DURATION, help="How long the override lasts. [default: until revoked]"
    )(command)


DEADLINE = click.option(
    "--deadline", "deadline_s", type=options.DURATION,
    help="Time after which BACKEND is disabled, and its remaining flows move. [default: never]",
)  # fmt: skip


def _override(name: Action, override: "OverriddenState | None", text: str) -> click.Command:
    one_only = name == "remove"  # a forgotten name must not disable a whole service

    @click.command(name=name, help=text if one_only else f"{text}\n\n{WHOLE}")
    @BACKEND_OR_ALL
    @SERVICE
    @click.option("--host", type=options.ADDRESS, help="At the manager: all backends of the host with this address.")
    @CONTROL
    @_managed
    @(DEADLINE if name == "drain" else lambda plain: plain)
    @options.json
    def command(
        backend: str | None, service: str | None, host: "Address | None", controls: tuple[Path, ...], as_json: bool,
        deadline_s: float | None = None, **managed: Any,
    ) -> None:  # fmt: skip
        from lbmux.api.requests import Override

        is_managed = bool(managed["managers"] and not controls)
        if host is not None and (backend is not None or not is_managed):
            raise click.UsageError("--host replaces BACKEND, and needs a manager")
        if backend is None and host is None and (service is None or one_only):
            whole = "" if one_only else ", or --service for all backends of a service"
            raise click.UsageError(f"give a BACKEND or, at a manager, --host{whole}")
        if is_managed:
            where = {"backend": backend, "service": service, "host": None if host is None else str(host)}
            _send_to_manager(managed, as_json, action=name, deadline_s=deadline_s, **where)
        else:
            _send(controls, as_json, Override(backend, override, service, managed["for_s"], deadline_s))

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
@_managed
@options.json
def weight(
    backend: str, weight: int | None, service: str | None, controls: tuple[Path, ...], as_json: bool, **managed: Any
) -> None:  # fmt: skip
    """Set the WEIGHT of BACKEND, its share of new flows; without WEIGHT, the file's weight applies again.

    Existing flows stay. This survives a restart. Without a manager, give a --control for each mux.
    """
    from lbmux.api.requests import SetWeight

    if managed["managers"] and not controls:
        _send_to_manager(managed, as_json, action="weight", backend=backend, weight=weight, service=service)
        return
    _check_endless(managed)
    _send(controls, as_json, SetWeight(backend, weight, service))


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
@_managed
@options.json
def add(service: str, dip: str, controls: tuple[Path, ...], as_json: bool, **more: Any) -> None:
    """Add a backend to SERVICE until it is removed or the file has it. The options correspond to the file's fields.

    This survives a restart. Without a manager, give a --control for its host's agent, then one for each mux.
    """
    from lbmux.api.requests import AddBackend

    address, port = ends(dip)
    managed = {name: more.pop(name) for name in MANAGED}
    fields = {"dip": address, "port": port, **more}
    backend = {name: value for name, value in fields.items() if value is not None}
    if managed["managers"] and not controls:
        _send_to_manager(managed, as_json, action="add", service=service, added=backend)
        return
    _check_endless(managed)
    _send(controls, as_json, AddBackend(service, backend))


def _check_endless(managed: dict[str, Any]) -> None:
    """Raise UsageError for an end of an override that only a manager can end."""
    if managed["for_s"] is not None:
        raise click.UsageError("--for needs a manager here")


def ends(text: str) -> tuple[str, int | None]:
    """Split text into address and port; an IPv6 address before a port is in brackets.  The daemon validates both."""
    match = ENDS.fullmatch(text)
    assert match is not None  # the last alternative matches anything
    port = match["port6"] or match["port4"]
    return match["v6"] or match["v4"] or match["bare"] or "", None if port is None else int(port)


def _send_to_manager(managed: dict[str, Any], as_json: bool, **request: Any) -> None:
    """Order an override of the whole pool, and print how it is stored."""
    from lbmux.cli.pool.manager_access import client, stamp
    from lbmux.manager.api_models import OverrideRequest, OverridesAnswer
    from lbmux.manager.stored_overrides import describe

    managers, token_file, manager_ca = (managed.pop(name) for name in ("managers", "token_file", "manager_ca"))
    body = OverrideRequest.model_validate({**request, **managed})
    answer = client(managers, token_file, manager_ca).post("/v1/overrides", body, OverridesAnswer)
    if as_json:
        click.echo(json.dumps({"version": 1, **answer.model_dump(mode="json")}))
        return
    for one in answer.overrides:
        until = "" if one.until is None else f", until {stamp(one.until)}"
        deadline = "" if one.deadline is None else f", disabled at {stamp(one.deadline)}"
        click.echo(f"{one.service}/{one.backend}: {describe(one)}{until}{deadline}")
    if not answer.overrides:
        click.echo("as in the file")


def _send(controls: tuple[Path, ...], as_json: bool, request: "Request[Overridden]") -> None:
    """Send a request to each daemon, even after one refuses; raise the first ControlError.  JSON has a line each."""
    from lbmux.api.control_client import ControlClient
    from lbmux.api.control_paths import meant_path
    from lbmux.api.protocol import to_json
    from lbmux.cli.shown_error import show_error
    from lbmux.errors import ControlError

    refused: list[ControlError] = []
    for path in controls or (meant_path(None),):
        try:
            states = ControlClient(path).ask(request).health
        except ControlError as error:
            refused.append(error)
            continue
        if as_json:
            click.echo(to_json({"version": 1, "control": str(path), "health": states}))
        else:
            _print(f"{path}: " if len(controls) > 1 else "", states)
    for more in refused[1:]:
        show_error(more)
    if refused:
        raise refused[0]


def _print(where: str, states: "Sequence[BackendHealth]") -> None:
    for one in states:
        click.echo(f"{where}{one.service}/{one.backend}: {one.state}: {one.reason}")
    if not states:
        click.echo(f"{where}no longer configured")
