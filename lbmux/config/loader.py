"""Reads the configuration from YAML, and says of everything that is wrong in which line it stands.

The file is composed to a tree of nodes first, since only nodes know their lines; the models (`config`) check
the values made of it, and each of their errors finds its line on the way down that tree.
"""

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.nodes import MappingNode, Node, SequenceNode

from lbmux.config.field_types import said
from lbmux.config.models import Config, too_many
from lbmux.errors import ConfigError, Problem

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML was built with it: a file of 10,000 backends takes a second, not ten."""
MAX_BYTES = 16 * 1024 * 1024
"""Of a file: the largest pool with the longest access lists takes less."""


def load(path: str | Path) -> Config:
    """The configuration in a file; ConfigError with every problem at once."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(path, [Problem(None, "", f"cannot be read: {error.strerror}")]) from error
    return parse(text, path)


def parse(text: bytes, path: Path) -> Config:
    """The configuration in the text of a file; `path` is only for what is said of it."""
    if len(text) > MAX_BYTES:
        raise ConfigError(path, [Problem(None, "", f"is longer than {MAX_BYTES} bytes, the most that are read")])
    with _without_collector():
        return _parse(text, path)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """A tree of a million nodes has no garbage, and the collector would walk it over and over again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _parse(text: bytes, path: Path) -> Config:
    try:
        loader = Loader(text)
        root = loader.get_single_node()
        if root is None:
            raise ConfigError(path, [Problem(1, "", "is empty: `services` should be in it")])
        if oversized := list(_oversized(root)):
            raise ConfigError(path, oversized)
        problems = list(_repeated_keys(root))
        data = loader.construct_document(root)
    except yaml.YAMLError as error:
        raise ConfigError(path, [_syntax_problem(error, text)]) from error
    except (ValueError, RecursionError) as error:  # a date that is none; brackets without end
        raise ConfigError(path, [Problem(1, "", f"is not usable YAML: {error}")]) from error
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        problems += [
            Problem(_line(root, one["loc"]), _field(one["loc"]), said(one, Config))
            for one in error.errors(include_url=False, include_input=False)
        ]
    if problems:
        raise ConfigError(path, sorted(problems, key=lambda problem: problem.line or 0))
    return config


def _syntax_problem(error: yaml.YAMLError, text: bytes) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        return Problem(mark.line + 1 if mark else 1, "", said)
    # Bytes that are no text: the reader knows how far it came.
    position = getattr(error, "position", 0)
    return Problem(text.count(b"\n", 0, position) + 1, "", f"is not text: {getattr(error, 'reason', error)}")


def _oversized(root: Node) -> Iterator[Problem]:
    """More services or backends than there may be, told before every one of them is checked."""
    for key, services in _items(root, "services"):
        backends = [value for service in services.value for _, value in _items(service, "backends")]
        for reason in too_many(len(services.value), sum(len(value.value) for value in backends)):
            yield Problem(key.start_mark.line + 1, "services", reason)


def _items(node: Any, name: str) -> Iterator[tuple[Node, SequenceNode]]:
    """Lists of that name in a mapping."""
    for key, value in node.value if isinstance(node, MappingNode) else ():
        if key.value == name and isinstance(value, SequenceNode):
            yield key, value


def _repeated_keys(root: Node) -> Iterator[Problem]:
    """YAML forbids a key twice in one mapping; PyYAML lets the last one win."""
    seen: set[int] = set()
    waiting: list[tuple[Node, tuple[int | str, ...]]] = [(root, ())]
    while waiting:
        node, location = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, SequenceNode):
            waiting += [(item, (*location, at)) for at, item in enumerate(node.value)]
        elif isinstance(node, MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                name = str(key.value)
                if name in lines:
                    said = f"stands twice: first in line {lines[name]}"
                    yield Problem(key.start_mark.line + 1, _field((*location, name)), said)
                lines.setdefault(name, key.start_mark.line + 1)
                waiting.append((value, (*location, name)))


def _line(node: Node, location: tuple[int | str, ...]) -> int:
    """The line of an item, or of a key; of the nearest thing around it where it is missing."""
    line = node.start_mark.line
    for step in location:
        if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line
        elif isinstance(node, MappingNode):
            found = [pair for pair in node.value if pair[0].value == str(step)]
            if not found:
                break
            key, node = found[-1]
            line = key.start_mark.line
        else:
            break
    return line + 1


def _field(location: tuple[int | str, ...]) -> str:
    """`services[0].vip`"""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).lstrip(".")
