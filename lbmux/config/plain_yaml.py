"""Builds a YAML document straight from libyaml's events, without the tree of nodes that knows the lines.

This is several times quicker than PyYAML's way, and builds the same values. It gives up at whatever a configuration
file rarely has: aliases, tags, merge keys, repeated keys, dates, syntax errors. `loader` then composes the nodes.
"""

from collections.abc import Callable
from typing import Any

import yaml
from yaml.events import (
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)
from yaml.nodes import ScalarNode

from lbmux.errors import LbmuxError

Fastest: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The libyaml loader if PyYAML has it; the other one is ten times slower."""
PREFIX = "tag:yaml.org,2002:"
MOST_DIGITS = 100
"""The longest number. PyYAML reads 1:30 as 90, and takes minutes for a megabyte of such digits."""
CONSTRUCTED = frozenset(f"{PREFIX}{kind}" for kind in ("null", "bool", "int", "float"))
"""Tags of plain scalars that are not text. The rest, such as dates and merge keys, is unusual."""


class Loader(Fastest):  # type: ignore[misc]
    """PyYAML's safe loader, with a limit for numbers."""

    def number(self, node: ScalarNode) -> Any:
        if len(node.value) > MOST_DIGITS:
            raise ValueError(f"a number of {len(node.value)} characters")
        return Fastest.yaml_constructors[node.tag](self, node)


for kind in ("int", "float"):
    Loader.add_constructor(f"{PREFIX}{kind}", Loader.number)

Next = Callable[[], Any]
Scalar = Callable[[Any], Any]


class UnusualYamlError(LbmuxError):
    """The document has something that only the tree of nodes can represent, or report."""


def load_plain(text: bytes) -> Any:
    """Return the document's value. Raise UnusualYamlError if PyYAML's own loader has to read it."""
    try:
        loader = Loader(text)
        following: Next = loader.get_event
        _expect(following(), StreamStartEvent)
        _expect(following(), DocumentStartEvent)
        value = _value(following(), following, _scalars(loader))
        _expect(following(), DocumentEndEvent)
        _expect(following(), StreamEndEvent)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UnusualYamlError() from error
    return value


def _expect(event: Any, kind: type) -> None:
    if type(event) is not kind:
        raise UnusualYamlError()


def _scalars(loader: Any) -> Scalar:
    """Return a function that makes the value of a scalar's event. Plain text is resolved once for each text."""
    resolvers, known = loader.yaml_implicit_resolvers, dict[str, Any]()

    def resolved(text: str) -> Any:
        for tag, pattern in resolvers.get(text[:1], ()):
            if pattern.match(text):
                if tag not in CONSTRUCTED:
                    raise UnusualYamlError()
                return loader.construct_object(ScalarNode(tag, text), deep=True)
        return text

    def scalar(event: Any) -> Any:
        if event.anchor is not None or event.tag is not None:
            raise UnusualYamlError()
        text = event.value
        if not event.implicit[0]:  # quoted
            return text
        if text not in known:
            known[text] = resolved(text)
        return known[text]

    return scalar


def _value(event: Any, following: Next, scalar: Scalar) -> Any:
    kind = type(event)
    if kind is ScalarEvent:
        return scalar(event)
    if kind not in (MappingStartEvent, SequenceStartEvent) or event.anchor is not None or event.tag is not None:
        raise UnusualYamlError()
    return _mapping(following, scalar) if kind is MappingStartEvent else _sequence(following, scalar)


def _sequence(following: Next, scalar: Scalar) -> list[Any]:
    items: list[Any] = []
    while type(event := following()) is not SequenceEndEvent:
        items.append(_value(event, following, scalar))
    return items


def _mapping(following: Next, scalar: Scalar) -> dict[str, Any]:
    items: dict[str, Any] = {}
    while type(event := following()) is not MappingEndEvent:
        key = scalar(event) if type(event) is ScalarEvent else None
        if type(key) is not str or key in items:
            raise UnusualYamlError()
        event = following()
        items[key] = scalar(event) if type(event) is ScalarEvent else _value(event, following, scalar)
    return items
