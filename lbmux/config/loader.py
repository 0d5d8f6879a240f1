"""Reads the configuration from YAML and reports every problem with its line.

The models (`models`) check the values. If there is an error, or anything that `plain_yaml` leaves, PyYAML composes a
tree of nodes, which know their lines; the location of each error is looked up there.
"""

import contextlib
import gc
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from lbmux.config.config_snapshot import ConfigSnapshot
from lbmux.config.field_types import Model, error_message
from lbmux.config.models import Config, over_limits
from lbmux.config.plain_yaml import Loader, UnusualYamlError, load_plain
from lbmux.errors import ConfigError, Problem
from lbmux.plurals import counted

MAX_BYTES = 16 * 1024 * 1024
"""The largest file that is read; the largest pool with the longest access lists needs less."""
INHERITED = Path("/dev/fd")
"""The shell's process substitution gives a path here."""
MOST_PROBLEMS = 1000
"""Problems that are listed; the rest is counted."""
KEY = "[key]"
"""The last step of the location of a mapping's key, as pydantic gives it."""
Index = dict[int, dict[str, tuple[Node, Node]]]
"""Key and value by name, for mappings by identity."""
AnyModel = TypeVar("AnyModel", bound=Model)
SNAPSHOT_FROM_BYTES = 1 << 17
"""The smallest file that gets a snapshot. Smaller ones load in a tenth of a second."""


def load(path: str | Path) -> Config:
    """Read the configuration from a file, or from its snapshot; raise ConfigError with all problems at once."""
    path = Path(path)
    text = read(path)
    if not path.is_file() or len(text) < SNAPSHOT_FROM_BYTES:
        return parse(text, path)
    snapshot = ConfigSnapshot(path, text)
    with without_collector():
        config = snapshot.read()
    if config is None:
        config = parse(text, path)
        snapshot.write(config)
    return config


def read(path: Path) -> bytes:
    """Read a regular file or an inherited descriptor (`/dev/fd/N`), or standard input for `-`.

    Raise ConfigError if it cannot be read, is anything else, or exceeds MAX_BYTES.
    """
    try:
        is_open = str(path) == "-" or path.parent == INHERITED
        if not is_open and not stat.S_ISREG(path.stat().st_mode):  # a FIFO would wait for its writer
            why = "cannot be read: it is not a regular file (use - for standard input)"
            raise ConfigError(path, (Problem(None, "", why),))
        with contextlib.nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(path, (Problem(None, "", f"cannot be read: {error.strerror}"),)) from error
    check_length(text, path)
    return text


def check_length(text: bytes, path: Path) -> None:
    if len(text) > MAX_BYTES:
        raise ConfigError(path, (Problem(None, "", f"is longer than the limit of {MAX_BYTES} bytes"),))


def parse(text: bytes, path: Path) -> Config:
    """Parse the text of a configuration file; `path` is used in messages only."""
    check_length(text, path)
    with without_collector():
        return _parse(text, path)


def parse_as(model: type[AnyModel], text: bytes, path: Path) -> AnyModel:
    """Parse the text of a file of another kind, with the model of its whole content."""
    check_length(text, path)
    if not text.strip():
        raise ConfigError(path, (Problem(1, "", "is empty"),))
    root, problems, data = _composed(text, path)
    try:
        content = model.model_validate(data)
    except ValidationError as error:
        problems += _problems(root, error, model)
    if problems:
        raise ConfigError(path, _in_order(problems))
    return content


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """Suspend garbage collection: a tree of a million nodes has no garbage, but each collection would walk it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _parse(text: bytes, path: Path) -> Config:
    try:
        data = load_plain(text)
        if not _is_oversized(data):
            return Config.model_validate(data)
    except UnusualYamlError:
        pass
    except ValidationError as error:
        root, *_ = _composed(text, path)
        raise ConfigError(path, _in_order(_problems(root, error))) from error
    root, problems, data = _composed(text, path)
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        problems += _problems(root, error)
    if problems:
        raise ConfigError(path, _in_order(problems))
    return config


def _composed(text: bytes, path: Path) -> tuple[Node, list[Problem], Any]:
    """Return the tree of nodes, its repeated keys, and its value.

    Raise ConfigError for invalid YAML and for too many services.
    """
    try:
        loader = Loader(text)
        root = loader.get_single_node()
        if root is None:
            raise ConfigError(path, (Problem(1, "", "is empty: `services` is missing"),))
        if oversized := list(_oversized(root)):
            raise ConfigError(path, tuple(oversized))
        repeated = list(_repeated_keys(root))  # before the construction, which merges `<<` into the nodes
        return root, repeated, loader.construct_document(root)
    except yaml.YAMLError as error:
        raise ConfigError(path, (_syntax_problem(error, text),)) from error
    except (ValueError, RecursionError) as error:  # an impossible date; brackets nested too deep
        raise ConfigError(path, (Problem(1, "", f"is not valid YAML: {error}"),)) from error


def _problems(root: Node, error: ValidationError, model: type[Model] = Config) -> list[Problem]:
    errors = error.errors(include_url=False, include_input=False)
    index: Index = {}
    problems = [
        Problem(_line(root, one["loc"], index), _field(one["loc"]), error_message(one, model))
        for one in errors[:MOST_PROBLEMS]
    ]
    if left := len(errors) - len(problems):
        problems.append(Problem(root.end_mark.line + 1, "", f"{counted(left, 'more problem')} not listed"))
    return problems


def _in_order(problems: list[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: problem.line or 0))


def _is_oversized(data: Any) -> bool:
    """Return whether there are too many services or backends, before each of them is checked."""
    services, pools = (data.get(name) if isinstance(data, dict) else None for name in ("services", "pools"))
    if not isinstance(services, list):
        return False
    lists = [service.get("backends") for service in services if isinstance(service, dict)]
    lists += pools.values() if isinstance(pools, dict) else ()
    return any(over_limits(len(services), sum(len(each) for each in lists if isinstance(each, list))))


def _syntax_problem(error: yaml.YAMLError, text: bytes) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        return Problem(mark.line + 1 if mark else 1, "", reason)
    # The bytes are not text; the error has the position of the first bad one.
    position = getattr(error, "position", 0)
    return Problem(text.count(b"\n", 0, position) + 1, "", f"is not text: {getattr(error, 'reason', error)}")


def _oversized(root: Node) -> Iterator[Problem]:
    """Yield a problem for too many services or backends, before each of them is checked."""
    pooled = [value for key, pools in _pairs(root) if key.value == "pools" for _, value in _pairs(pools)]
    for key, services in _items(root, "services"):
        lists = [value for service in services.value for _, value in _items(service, "backends")]
        lists += [value for value in pooled if isinstance(value, SequenceNode)]
        for reason in over_limits(len(services.value), sum(len(value.value) for value in lists)):
            yield Problem(key.start_mark.line + 1, "services", reason)


def _items(node: Any, name: str) -> Iterator[tuple[Node, SequenceNode]]:
    """Yield the key and the list of that name in a mapping."""
    for key, value in _pairs(node):
        if key.value == name and isinstance(value, SequenceNode):
            yield key, value


def _pairs(node: Any) -> Sequence[tuple[Node, Node]]:
    """Return the keys and values of a mapping; nothing for any other node."""
    return node.value if isinstance(node, MappingNode) else ()


def _repeated_keys(root: Node) -> Iterator[Problem]:
    """Yield a problem for each repeated key: YAML forbids them, PyYAML silently uses the last one."""
    seen: set[int] = set()
    pending: list[tuple[Node, tuple[int | str, ...]]] = [(root, ())]
    while pending:
        node, location = pending.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, SequenceNode):
            pending += [(item, (*location, at)) for at, item in enumerate(node.value)]
        elif isinstance(node, MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                name = str(key.value)
                if name in lines:
                    reason = f"is a repeated key; the first is in line {lines[name]}"
                    yield Problem(key.start_mark.line + 1, _field((*location, name)), reason)
                lines.setdefault(name, key.start_mark.line + 1)
                pending.append((value, (*location, name)))


def _line(node: Node, location: tuple[int | str, ...], index: Index) -> int:
    """Return the line of an item or key; if it is missing, the line of the nearest node around it.

    ``index`` keeps the keys of mappings that have been searched.
    """
    line = node.start_mark.line
    for step in location:
        if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line
        elif isinstance(node, MappingNode):
            if id(node) not in index:
                index[id(node)] = {key.value: (key, value) for key, value in node.value if isinstance(key, ScalarNode)}
            if str(step) not in index[id(node)]:
                break
            key, node = index[id(node)][str(step)]
            line = key.start_mark.line
        else:
            break
    return line + 1


def _field(location: tuple[int | str, ...]) -> str:
    """Return the location as text: `services[0].vip`."""
    steps = (step for step in location if step != KEY)
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
