"""The syntax of keepalived.conf(5): a key and words on each line, optionally with a block in braces.

`!` and `#` begin a comment. Conditions and variables (`@` and `$` in front) are not expanded.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from lbmux.errors import ConfigError, Problem
from lbmux.tools.import_config.entries import Entry

TOKEN = re.compile(r"""[!#].*|"([^"]*)"|'([^']*)'|([{}])|([^\s{}"'!#][^\s{}"']*)""")
Line = tuple[int, list[str]]
"""The number of a line, and its words; each brace is a word of its own."""


def parse(text: str, path: Path) -> tuple[Entry, ...]:
    """Return the entries of a file; raise ConfigError if its braces do not match."""
    lines = iter([*_lines(text)])
    entries = tuple(_entries(lines, path, None))
    return entries


def _lines(text: str) -> Iterator[Line]:
    for number, line in enumerate(text.splitlines(), 1):
        words: list[str] = []
        for token in TOKEN.finditer(line):
            if brace := token[3]:
                if words:
                    yield number, words
                    words = []
                yield number, [brace]
            elif not token[0].startswith(("!", "#")):
                words.append(next(group for group in (token[1], token[2], token[4]) if group is not None))
        if words:
            yield number, words


def _entries(lines: Iterator[Line], path: Path, opened: int | None) -> Iterator[Entry]:
    """Yield entries up to the closing brace of the block that was ``opened`` in that line."""
    before: Line | None = None
    for number, words in lines:
        if words == ["{"] and before is not None:
            yield Entry(before[0], before[1][0], tuple(before[1][1:]), tuple(_entries(lines, path, number)))
            before = None
            continue
        if before is not None:
            yield Entry(before[0], before[1][0], tuple(before[1][1:]))
        before = None if words == ["}"] else (number, words)
        if words == ["}"] and opened is not None:
            return
        if words in (["{"], ["}"]):
            raise ConfigError(path, (Problem(number, "", f"unexpected {words[0]}"),))
    if before is not None:
        yield Entry(before[0], before[1][0], tuple(before[1][1:]))
    if opened is not None:
        raise ConfigError(path, (Problem(opened, "", "this { is never closed"),))
