"""Paths of the control sockets."""

from collections.abc import Sequence
from pathlib import Path


def default_path(program: str) -> Path:
    """Return the default socket of a program (`mux`, `agent`, `edge`)."""
    return Path("/run/lbmux") / f"{program}.sock"


def meant_path(given: Path | None) -> Path:
    """Return the given socket, or else the first existing one of mux, agent and edge."""
    paths = [default_path(program) for program in ("mux", "agent", "edge")]
    return given or next((path for path in paths if path.exists()), paths[0])


def named_paths(paths: Sequence[Path]) -> dict[str, Path]:
    """Return sockets by name: `mux1` for mux1.sock, the full path if two have the same name."""
    stems = [path.stem for path in paths]
    return {str(path) if stems.count(path.stem) > 1 else path.stem: path for path in paths}
