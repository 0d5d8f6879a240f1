"""Paths of the control sockets."""

from collections.abc import Sequence
from pathlib import Path

from lbmux.api.channel import PROGRAMS, ControlTarget


def default_path(program: str) -> Path:
    """Return the default socket of a program (`mux`, `agent`, `edge`)."""
    return Path("/run/lbmux") / f"{program}.sock"


def meant_path(explicit: Path | None) -> Path:
    """Return the given socket, or else the first existing one of mux, agent and edge."""
    paths = [default_path(program) for program in PROGRAMS]
    return explicit or next((path for path in paths if path.exists()), paths[0])


def named_targets(targets: Sequence[ControlTarget]) -> dict[str, ControlTarget]:
    """Return daemons by name: `mux1` for mux1.sock and for the node mux1, the full path if two have the same name."""
    names = [target.stem if isinstance(target, Path) else target.name for target in targets]
    return {
        str(target) if names.count(name) > 1 and isinstance(target, Path) else name: target
        for name, target in zip(names, targets, strict=True)
    }
