"""Describes where an operator's overrides take precedence over the configuration file, for a reload.  Pure."""

from collections.abc import Iterator

from lbmux.backends.overrides import Override, Overrides
from lbmux.config.models import Backend, Config

PARTICIPLES = {"drain": "drained", "disable": "disabled", "remove": "removed"}


def precedences(file: Config, overrides: Overrides) -> list[str]:
    """Return a line for each backend whose override differs from the file; one line for a backend of a pool."""
    lines = dict[str, None]()
    for service in file.services:
        where = f"service {service.name}" if service.pool is None else f"pool {service.pool}"
        for backend in service.backends:
            override = overrides.of.get((service.name, backend.name))
            if override is not None and (differences := ", ".join(_differences(backend, override))):
                lines[f"override: {where}: backend {backend.name}: {differences}"] = None
    return list(lines)


def _differences(backend: Backend, override: Override) -> Iterator[str]:
    if override.admin_state is not None:
        yield f"{PARTICIPLES[override.admin_state]} by command (`lbmux enable {backend.name}` reverts it)"
    if override.weight is not None and override.weight != backend.weight:
        revert = f"`lbmux weight {backend.name}` reverts it"
        yield f"weight {override.weight} by command, not the file's {backend.weight} ({revert})"
