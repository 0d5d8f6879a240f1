"""Answers of one daemon or of the pool's nodes, for `lbmux show`: asked at once, filtered, printed with their node."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lbmux.cli.text_table import print_table
from lbmux.cli.where import Where

if TYPE_CHECKING:
    from lbmux.api.channel import ControlTarget
    from lbmux.api.control_client import ControlClient
    from lbmux.api.requests import ListRequest

TIMEOUT_S, MOST_THREADS = 30.0, 16
Answer = TypeVar("Answer")
Line = TypeVar("Line")


def client_of(target: "ControlTarget", timeout_s: float | None = TIMEOUT_S) -> "ControlClient":
    from lbmux.api.control_client import ControlClient

    return ControlClient(target, timeout_s)


def node_of(target: "ControlTarget") -> str:
    """Return the name of a node of the pool; empty for a daemon on this machine."""
    return "" if isinstance(target, Path) else target.name


def ask_all(
    where: Where, ask: "Callable[[ControlClient], Answer]", timeout_s: float | None = TIMEOUT_S
) -> "Iterator[tuple[str, Answer]]":
    """Ask all selected daemons at once, and yield nodes and answers. Raise the first error at the end."""
    from concurrent.futures import ThreadPoolExecutor

    from lbmux.cli.shown_error import show_error
    from lbmux.errors import ControlError

    targets, refused = where.all(), list[ControlError]()
    with ThreadPoolExecutor(min(len(targets), MOST_THREADS)) as threads:
        futures = [(target, threads.submit(ask, client_of(target, timeout_s))) for target in targets]
        for target, answer in futures:
            try:
                yield node_of(target), answer.result()
            except ControlError as error:
                refused.append(error)
    for more in refused[1:]:
        show_error(more)
    if refused:
        raise refused[0]


def print_json(node: str, answer: Any) -> None:
    """Print an answer as one line, with its node if it is one of the pool's."""
    from lbmux.api.protocol import to_json, to_plain

    click.echo(to_json({"node": node, **to_plain(answer)} if node else answer))


def print_node(node: str) -> None:
    if node:
        click.echo(click.style(node, bold=True))


def with_node(where: Where, columns: Mapping[str, str]) -> Mapping[str, str]:
    return {"node": "node", **columns} if where.is_pool else columns


def matching(lines: Sequence[Line], wanted: Mapping[str, str | None]) -> list[Line]:
    """Return the lines whose fields match all patterns; an address matches in any notation."""
    from fnmatch import fnmatchcase

    patterns = {field: _plain(pattern) for field, pattern in wanted.items() if pattern is not None}
    return [
        line for line in lines if all(fnmatchcase(str(getattr(line, field)), one) for field, one in patterns.items())
    ]


def _plain(pattern: str) -> str:
    from ipaddress import ip_address

    try:
        return str(ip_address(pattern))
    except ValueError:
        return pattern


def print_list(
    where: Where, request: "ListRequest[Any]", as_json: bool, columns: Mapping[str, str],
    wanted: Mapping[str, str | None] = MappingProxyType({}),
) -> None:  # fmt: skip
    from dataclasses import replace

    rows = list[dict[str, Any]]()
    for node, answer in ask_all(where, lambda client: client.whole(request)):
        lines = matching(getattr(answer, request.command), wanted)
        if as_json:
            print_json(node, replace(answer, **{request.command: lines}))
        rows += [{"node": node, **vars(line)} for line in lines]
    if not as_json:
        print_table(rows, with_node(where, columns))


def same(*names: str) -> dict[str, str]:
    """Return columns whose titles are the fields' names."""
    return {name: name for name in names}
