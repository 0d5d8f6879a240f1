"""Names for shell completion: services and backends in force, and the lab's systems, events and nodes.

A shell asks for them while a user types, so functions return quickly and never raise: without an answer there are no
names.
"""

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path

import click

TIMEOUT_S = 1.0
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _completing(names: Callable[[click.Context], Iterable[str]]) -> Complete:
    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        try:
            candidates = dict.fromkeys(names(ctx))
        except Exception:  # a traceback would garble the line that the user types
            return []
        return [name for name in candidates if name.startswith(incomplete)]

    return complete


def _lines(ctx: click.Context) -> list[tuple[str, str]]:
    """Return service and backend of all backends in force, else of the file in LBMUX_CONFIG."""
    from lbmux.api.control_client import ControlClient
    from lbmux.api.control_paths import meant_path
    from lbmux.api.requests import GetBackends, GetHealth
    from lbmux.errors import ControlError

    control = ctx.params.get("controls") or ctx.params.get("control")
    client = ControlClient(meant_path(Path(control[0]) if isinstance(control, tuple) else control), TIMEOUT_S)
    keys: list[tuple[str, str]] = []
    with contextlib.suppress(ControlError):
        keys += [line.key for line in client.whole(GetBackends()).backends]
    with contextlib.suppress(ControlError):  # only the health list has backends that are out of the tables
        keys += [line.key for line in client.whole(GetHealth()).health]
    return keys or _configured()


def _configured() -> list[tuple[str, str]]:
    import os

    from lbmux.config.loader import load

    services = load(os.environ["LBMUX_CONFIG"]).services
    return [(service.name, backend.name) for service in services for backend in service.backends]


def _backends(ctx: click.Context) -> Iterable[str]:
    wanted = ctx.params.get("service")
    return [backend for service, backend in _lines(ctx) if wanted in (None, service)]


def _topologies(ctx: click.Context) -> Iterable[str]:
    from lbmux.lab.systems.built_in import TOPOLOGIES

    return TOPOLOGIES


def _scenarios(ctx: click.Context) -> Iterable[str]:
    from lbmux.lab.scoreboard.scenarios import SCENARIOS

    return [*SCENARIOS, "all"]


def _chaos_systems(ctx: click.Context) -> Iterable[str]:
    from lbmux.lab.chaos.chaos_system import SYSTEMS

    return SYSTEMS


def _nodes(ctx: click.Context) -> Iterable[str]:
    from lbmux.lab.lab import Lab
    from lbmux.lab.systems.built_in import DEFAULT, TOPOLOGIES

    lab = Lab.existing(ctx.params.get("name") or "lbmux", TOPOLOGIES[DEFAULT]())
    return [node["node"] for node in lab.status()["nodes"]]


def events(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Complete the last of several events that are joined by +."""
    from lbmux.lab.scoreboard.scoreboard_events import EVENTS

    before, plus, _ = incomplete.rpartition("+")
    return [name for event in EVENTS if (name := f"{before}{plus}{event}").startswith(incomplete)]


def _black_holes(ctx: click.Context) -> Iterable[str]:
    from lbmux.api.control_client import ControlClient
    from lbmux.api.control_paths import meant_path
    from lbmux.api.requests import GetRuntime

    overload = ControlClient(meant_path(ctx.params.get("control")), TIMEOUT_S).ask(GetRuntime()).overload
    return overload.black_holes if overload else ()


backends = _completing(_backends)
black_holes = _completing(_black_holes)
services = _completing(lambda ctx: [service for service, _ in _lines(ctx)])
topologies, scenarios, nodes = _completing(_topologies), _completing(_scenarios), _completing(_nodes)
chaos_systems = _completing(_chaos_systems)
