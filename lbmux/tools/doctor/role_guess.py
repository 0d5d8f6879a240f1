"""Guess the role of a machine whose daemon does not run: from files that a daemon left, or from its addresses."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

from lbmux.addresses import Address
from lbmux.api.control_paths import default_path
from lbmux.config.models import Config
from lbmux.targets.bpf.pins import directory_of

Known = tuple[Literal["mux", "agent"], str]
"""The role, and the reason for the guess."""
SETTINGS = Path("/etc/lbmux")
"""The directory of the units' environment files (`lbmux unit`)."""
KEPT = (".overrides", ".found")
"""Suffixes of files beside the socket that outlive the daemon."""
PROGRAMS: tuple[Literal["mux", "agent"], ...] = ("mux", "agent")


def guess_role(config: Config | None, own: Collection[Address]) -> Known | None:
    """Return the most likely role; None without any evidence.  ``own``: this machine's addresses."""
    return next(_every(config, own), None)


def _every(config: Config | None, own: Collection[Address]) -> Iterator[Known]:
    for program in PROGRAMS:
        for path in _traces(program):
            if path.exists():
                yield program, f"{path} exists"

    if config is not None:
        yield from (("mux", f"its address {mux} is one of `muxes`") for mux in config.muxes if mux in own)
        hosts = (backend.tunnel_to for service in config.services for backend in service.backends)
        yield from (("agent", f"its address {host} is a backend's host") for host in hosts if host in own)


def _traces(program: str) -> Iterator[Path]:
    socket = default_path(program)
    yield from (socket.with_suffix(suffix) for suffix in KEPT)
    yield SETTINGS / f"{program}.env"
    pattern = directory_of("*", program)
    yield from pattern.parent.glob(pattern.name) if pattern.parent.is_dir() else ()
