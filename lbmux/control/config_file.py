"""Reads the configuration from YAML, and says of everything that is wrong in which line it stands.

The file is composed to a tree of nodes first, since only nodes know their lines; the models (`config`) check
the values made of it, and each of their errors finds its line on the way down that tree.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import ValidationError
from yaml.nodes import MappingNode, Node, SequenceNode

from lbmux.control.config import Config
from lbmux.control.config_types import said
from lbmux.errors import ConfigError, Problem

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML was built with it: a file of 10,000 backends takes a second, not ten."""


def load(path: str | Path) -> Config:
    """The configuration in a file; ConfigError with every problem at once."""
    path = Path(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(path, [Problem(None, "", f"cannot be read: {error.strerror}")]) from error
    return parse(text, path)


def parse(text: bytes, path: Path) -> Config:
    """The configuration in the text of a file; `path` is only for what is said of it."""
    try:
        loader = Loader(text)
        root = loader.get_single_node()
        if root is None:
            raise ConfigError(path, [Problem(1, "", "is empty: `services` should be in it")])
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
            Problem(_line(root, one["loc"]), _field(one["loc"]), said(one))
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
