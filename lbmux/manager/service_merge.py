"""Replaces one service of a file by that of another (`lbmux apply FILE --service NAME`); comments stay.  Pure.

The item's lines are replaced. Files where that does not give the intended configuration (items in flow style, aliases)
are refused.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yaml.nodes import MappingNode, Node, SequenceNode

from lbmux.config.known_services import parse_known
from lbmux.config.models import Config, Service
from lbmux.config.plain_yaml import Loader
from lbmux.errors import LbmuxError


class MergeError(LbmuxError):
    """The service cannot be taken from one file into the other."""

    service: str
    reason: str

    def __str__(self) -> str:
        return f"service {self.service}: {self.reason}"


def merge_service(current: bytes, new: bytes, name: str, path: Path) -> bytes:
    """Return ``current`` with the service of this name from ``new``, which replaces or follows those that it has.

    Raise ConfigError if a file is invalid (``path`` is the name of ``new``), MergeError if they cannot be merged.
    """
    before = parse_known(current, Path("the current revision"))
    file = parse_known(new, path)
    wanted = {one.name: one for one in file.services}
    if name not in wanted:
        raise MergeError(name, f"{path} has no such service")
    _check_pool(wanted[name], file, before)
    lines, source = current.decode().splitlines(keepends=True), new.decode().splitlines(keepends=True)
    places, items = dict(_items(current)), dict(_items(new))
    first, last, column = places.get(name, (0, 0, 0))
    if name not in places and places:
        _, first, column = list(places.values())[-1]
        last = first
    start, end, old_column = items.get(name, (0, 0, 0))
    lines[first:last] = [_shifted(line, column - old_column) for line in source[start:end]]
    merged = "".join(_ended(line) for line in lines).encode()
    config = parse_known(merged, Path(f"the current revision with {name} from {path}"))
    services = {one.name: one for one in config.services}
    others = {one.name: one for one in before.services if one.name != name}
    mine = services.pop(name, None)
    # Idle times and sizes for all services come from the current revision.
    same = {} if mine is None else {"idle": mine.idle, "maglev_size": mine.maglev_size}
    if mine is None or services != others or mine != wanted[name].model_copy(update=same):
        raise MergeError(name, "cannot be merged, because the files use flow style or aliases: apply the whole file")
    return merged


def _check_pool(service: Service, file: Config, before: Config) -> None:
    """Raise MergeError if the change is about more than this service: the service's overrides act in its whole pool."""
    pool, old = service.pool, next((one for one in before.services if one.name == service.name), None)
    if pool is not None and before.pools.get(pool) != file.pools[pool]:
        raise MergeError(service.name, f"its pool {pool} is another one in the current revision: apply the whole file")
    if pool is not None and old is not None and old.pool != pool:
        raise MergeError(service.name, f"it joins pool {pool}, whose services it may change: apply the whole file")


def _items(text: bytes) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Yield each service's name, its first line, the line after its last one, and the column of its dash."""
    root: Any = Loader(text).get_single_node()
    services = next((value for key, value in root.value if key.value == "services"), None)
    if not isinstance(services, SequenceNode) or services.flow_style or not services.value:
        return
    starts = [item.start_mark.line for item in services.value]
    ends = [*starts[1:], _line_behind(services)]
    for item, start, end in zip(services.value, starts, ends, strict=True):
        yield _name(item), (start, end, services.start_mark.column)


def _line_behind(node: Node) -> int:
    """Return the line after a node that ends with its line."""
    return node.end_mark.line + (node.end_mark.column > 0)


def _name(item: Node) -> str:
    assert isinstance(item, MappingNode)  # the models have checked it
    return next(str(value.value) for key, value in item.value if key.value == "name")


def _shifted(line: str, columns: int) -> str:
    if columns >= 0:
        return " " * columns + line if line.strip() else line
    return line[-columns:] if not line[:-columns].strip() else line.lstrip(" ")


def _ended(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n"
