"""The result of an import: a configuration that `lbmux config check` accepts, and the list of what was left out."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lbmux.config.item_faults import first_fault
from lbmux.config.models import Config, Service
from lbmux.errors import ConfigError, Problem
from lbmux.plurals import counted


@dataclass
class Imported:
    """``lines``: where each service begins in the file, by its name."""

    services: list[dict[str, Any]] = field(default_factory=list)
    muxes: list[str] = field(default_factory=list)
    left: list[Problem] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)

    def add(self, line: int, service: dict[str, Any]) -> None:
        """Add a service; parts that lbmux would refuse are left out."""
        self.lines[service["name"]] = line
        while problem := first_fault(Service, service):
            location, message = problem
            self.left.append(Problem(line, f"{service['name']}.{'.'.join(map(str, location))}", message))
            match location:
                case ("backends", int(at), *_):
                    del service["backends"][at]
                case ("health", *_):
                    del service["health"]
                case _:
                    return
        self.services.append(service)

    def finish(self, path: Path) -> None:
        """Check the services together; raise ConfigError if no service remains."""
        while self.services and (problem := first_fault(Config, self.document())):
            location, message = problem
            if location[0] != "services" or len(location) < 2:
                raise ConfigError(path, (Problem(None, str(location[0]), message),))
            gone = self.services.pop(int(location[1]))
            self.left.append(Problem(self.lines[gone["name"]], gone["name"], message))
        self.left.sort(key=lambda problem: problem.line or 0)
        if not self.services:
            raise ConfigError(path, (Problem(None, "", "has no service that lbmux can import"), *self.left))

    def document(self) -> dict[str, Any]:
        return ({"muxes": self.muxes} if self.muxes else {}) | {"services": self.services}


def as_yaml(imported: Imported, path: Path) -> str:
    """Return the configuration file, with what was left out as comments at its head."""
    options: dict[str, Any] = {"sort_keys": False, "default_flow_style": None, "width": 110, "allow_unicode": True}
    text = yaml.dump(imported.document(), Dumper=_WithoutAliases, **options)
    return "\n".join([*_head(imported, path), text.rstrip(), ""])


class _WithoutAliases(yaml.SafeDumper):
    """Writes a value that occurs twice two times, without an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _head(imported: Imported, path: Path) -> Iterator[str]:
    yield f"# {path}, by `lbmux config import`"
    if imported.left:
        yield "# Not imported, or changed:"
    repeated: dict[tuple[str, str], list[Problem]] = {}
    for problem in imported.left:
        repeated.setdefault((problem.field, problem.message), []).append(problem)
    for first, *more in repeated.values():
        yield f"#   {' '.join(first.describe(path).split())}" + (
            f" (and {counted(len(more), 'more line')})" if more else ""
        )
