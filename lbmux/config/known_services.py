"""Parses a file that is mostly known: a change of one service among a thousand costs little.

The file is cut at the lines where its services begin. A service whose lines are those of a file that was parsed before
is not read again, and its object is the same, so that comparisons are quick too. What holds between services is always
checked. A file that cannot be cut safely, or has an error, is parsed whole by `loader`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lbmux.config.loader import check_length, parse, without_collector
from lbmux.config.models import MAX_SERVICES, Config, Service
from lbmux.config.plain_yaml import UnusualYamlError, load_plain

SECTION = re.compile(rb"^services:[ \t]*(?:#[^\n]*)?\n(?:[ ]*(?:#[^\n]*)?\n)*(?P<indent>[ ]*)- ", re.MULTILINE)
OTHER_BREAKS = (b"\r", b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9")
"""Line breaks of YAML beside the line feed, in UTF-8."""
KEPT_FILES = 4
"""Files whose services are remembered: the one in force, the next one, a canary's base, and one to merge from."""


@dataclass(frozen=True)
class Pieces:
    """A file's lines before its services, those of each service, and those behind them."""

    before: bytes
    services: Sequence[bytes]
    behind: bytes


@dataclass(frozen=True)
class _File:
    """A file that was parsed; ``around``: what it has beside its services, which may be part of what they mean."""

    text: bytes
    config: Config
    around: Any
    services: Mapping[bytes, Service]
    """The lines of a service to the service."""


class KnownServices:
    """Remembers the services of the last files, by their lines."""

    def __init__(self) -> None:
        self._files: list[_File] = []

    def parse(self, text: bytes, path: Path) -> Config:
        """Return what `loader.parse` returns; raise ConfigError like it."""
        check_length(text, path)
        files = self._files  # replaced, never changed: other threads parse too
        for known in files:
            if known.text == text:
                return known.config
        pieces = cut(text)
        if pieces is None:
            return parse(text, path)
        with without_collector():
            found = _read(text, pieces, files)
        if found is None:
            return parse(text, path)
        self._files = [found, *files][:KEPT_FILES]
        return found.config


def cut(text: bytes) -> Pieces | None:
    """Cut a file at the lines where its services begin; None: it is written in another style."""
    sections = [*SECTION.finditer(text)]
    if len(sections) != 1 or any(one in text for one in OTHER_BREAKS):
        return None
    (section,) = sections
    column, first = len(section["indent"]), section.start("indent")
    behind = re.compile(rb"\n(?![ ]{%d}- |[ ]{%d}|[ ]*(?:#|\n|\Z))" % (column, column + 1)).search(text, first)
    last = len(text) if behind is None else behind.start() + 1
    item = re.compile(rb"\n[ ]{%d}- " % column)
    starts = [first, *(one.start() + 1 for one in item.finditer(text, first, last))]
    services = [text[a:b] for a, b in zip(starts, [*starts[1:], last], strict=True)]
    return Pieces(text[:first], services, text[last:])


def _read(text: bytes, pieces: Pieces, files: Sequence[_File]) -> _File | None:
    """Read a file with the services of others; None: only `loader` can read it, or say what is wrong.

    The first service is read in its place, so that what is around the services is known to be around them.
    """
    if len(pieces.services) > MAX_SERVICES:
        return None
    try:
        frame = load_plain(pieces.before + pieces.services[0] + pieces.behind)
        if not isinstance(frame, dict) or frame.get("services") != load_plain(pieces.services[0]):
            return None
        around = {**frame, "services": None}
        known = [one.services for one in files if one.around == around]
        services = [_service(lines, known) for lines in pieces.services]
        config = Config.model_validate({**frame, "services": services})
    except (UnusualYamlError, ValidationError):
        return None
    return _File(text, config, around, dict(zip(pieces.services, config.services, strict=True)))


def _service(lines: bytes, known: Sequence[Mapping[bytes, Service]]) -> Service:
    """Return a service that is known, or read it."""
    return next((one[lines] for one in known if lines in one), None) or _alone(lines)


def _alone(lines: bytes) -> Service:
    """Read one service; raise UnusualYamlError if its lines are not one item of a list."""
    items: Any = load_plain(lines)
    if not isinstance(items, list) or len(items) != 1:
        raise UnusualYamlError()
    return Service.model_validate(items[0])


parse_known = KnownServices().parse
"""`loader.parse` with the memory of this process."""
