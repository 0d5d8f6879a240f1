"""Where an operator's overrides take precedence over the configuration file: what a reload says of them.  Pure."""

from collections.abc import Iterator

from lbmux.backends.overrides import Override, Overrides
from lbmux.config.models import Backend, Config

SAID = {"drain": "drained", "disable": "disabled", "remove": "removed"}


def precedences(file: Config, overrides: Overrides) -> list[str]:
    """A line for each backend that the file has otherwise than it is in force."""
    found: list[str] = []
    for service in file.services:
        for backend in service.backends:
            override = overrides.of.get((service.name, backend.name))
            if override is not None and (said := ", ".join(_differences(backend, override))):
                found.append(f"override: service {service.name}: backend {backend.name}: {said}")
    return found


def _differences(backend: Backend, override: Override) -> Iterator[str]:
    if override.admin_state is not None:
        yield f"{SAID[override.admin_state]} by command (`lbmux enable {backend.name}` ends that)"
    if override.weight is not None and override.weight != backend.weight:
        ends = f"`lbmux weight {backend.name}` ends that"
        yield f"weight {override.weight} by command, not the file's {backend.weight} ({ends})"
