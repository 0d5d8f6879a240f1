"""Read and write topologies as YAML, with an error for every mistake.

A file has the fields of lbmux.lab.topology.  ``lbmux lab topology`` prints a built-in one as a start.  A lab's state
file holds its topology in the same form.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from lbmux.config.models import Config
from lbmux.errors import LabError
from lbmux.lab.topology import INTERFACE_NAME_CHARACTERS, PLACEHOLDERS, Topology

_TOPOLOGY = TypeAdapter(Topology)
NODE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
PLACEHOLDER = re.compile(r"\{(.*?)\}")


def load(path: Path) -> Topology:
    """Read a topology.  LabError with a line for each mistake."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise LabError("", f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise LabError("", f"{path}: not YAML: {error}") from error
    try:
        topology = parse(content)
    except ValidationError as error:
        raise LabError("", _lines(path, _describe(error))) from error
    if mistakes := list(problems(topology)):
        raise LabError("", _lines(path, mistakes))
    return topology


def parse(content: Any) -> Topology:
    """Return a topology from plain data.  Raise ValidationError if the data has another shape."""
    return _TOPOLOGY.validate_python(content)


def plain(topology: Topology) -> dict[str, Any]:
    """Return a topology as plain data for YAML and JSON."""
    data: dict[str, Any] = _TOPOLOGY.dump_python(topology, mode="json", exclude_defaults=True)
    return data


def problems(topology: Topology) -> Iterator[str]:
    """Yield mistakes across the topology: unknown references, duplicates and invalid names."""
    nodes = Counter(node.name for node in topology.nodes)
    yield from (f"nodes: {name}: duplicate name" for name, count in nodes.items() if count > 1)
    yield from (f"nodes: {name!r}: use letters, digits and - only" for name in nodes if not NODE_NAME.fullmatch(name))
    ends = [port for link in topology.links for port in (link.a, link.b)]
    interfaces = Counter((port.node, port.interface) for port in ends)
    for (node, interface), count in interfaces.items():
        if node not in nodes:
            yield f"links: {node}: no such node"
        if count > 1:
            yield f"links: {node}: {interface}: duplicate interface name"
        if not 0 < len(interface) <= INTERFACE_NAME_CHARACTERS:
            yield f"links: {node}: {interface!r}: must have 1 to {INTERFACE_NAME_CHARACTERS} characters"
    for node_name, argument in ((n.name, a) for n in topology.nodes for p in n.programs for a in p.arguments):
        unknown = set(PLACEHOLDER.findall(argument)) - set(PLACEHOLDERS)
        yield from (
            f"nodes: {node_name}: {{{name}}}: unknown placeholder; use one of {', '.join(PLACEHOLDERS)}"
            for name in sorted(unknown)
        )
    try:
        Config.model_validate(topology.config)
    except ValidationError as error:
        yield from (f"config.{line}" for line in _describe(error))


def _describe(error: ValidationError) -> list[str]:
    return [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]


def _lines(path: Path, mistakes: list[str]) -> str:
    return "\n".join(f"{path}: {mistake}" for mistake in mistakes)
