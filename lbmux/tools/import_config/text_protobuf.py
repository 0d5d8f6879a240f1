"""Protocol buffers in their text format, without a schema: `key: value` and `key { ... }`, as in Seesaw's cluster.pb.

Source: "Text Format Language Specification", protobuf.dev. Extensions and `Any` in brackets are not supported.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lbmux.errors import ConfigError, Problem
from lbmux.tools.import_config.entries import Entry

TOKEN = re.compile(
    r"""(?P<skipped>\s+|\#[^\n]*)|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|(?P<word>[\w.+-]+)"""
    r"""|(?P<mark>[:<>{}\[\],;])"""
)
CLOSING = {"{": "}", "<": ">"}


class Token(NamedTuple):
    kind: str
    text: str
    line: int


END = Token("end", "the end of the file", 0)


def parse(text: str, path: Path) -> tuple[Entry, ...]:
    """Return the entries of a file; raise ConfigError at the first that is not in the format."""
    tokens = _Tokens([*_tokens(text, path)], path)
    return tuple(_entries(tokens, None))


def _tokens(text: str, path: Path) -> Iterator[Token]:
    at, line = 0, 1
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise ConfigError(path, (Problem(line, "", f"unexpected character {text[at]!r}"),))
        if match.lastgroup != "skipped":
            yield Token(str(match.lastgroup), match[0], line)
        line += match[0].count("\n")
        at = match.end()


class _Tokens:
    def __init__(self, tokens: list[Token], path: Path) -> None:
        self._tokens, self._at, self._path = tokens, 0, path

    @property
    def next(self) -> Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else END

    def take(self) -> Token:
        token = self.next
        self._at += 1
        return token

    def take_if(self, *marks: str) -> str:
        return self.take().text if self.next.kind == "mark" and self.next.text in marks else ""

    def refuse(self, wanted: str) -> ConfigError:
        line = self.next.line or (self._tokens[-1].line if self._tokens else 1)
        return ConfigError(self._path, (Problem(line, "", f"{self.next.text}: expected {wanted}"),))


def _entries(tokens: _Tokens, closing: str | None) -> Iterator[Entry]:
    """Yield entries up to the closing mark, or to the end of the file."""
    while not (closing and tokens.take_if(closing)):
        if closing is None and tokens.next is END:
            return
        if tokens.next.kind != "word":
            raise tokens.refuse("a key" + (f" or {closing}" if closing else ""))
        key = tokens.take()
        has_colon = bool(tokens.take_if(":"))
        if tokens.take_if("["):
            while not tokens.take_if("]"):
                yield _value(tokens, key, has_colon)
                tokens.take_if(",")
        else:
            yield _value(tokens, key, has_colon)
        tokens.take_if(",", ";")


def _value(tokens: _Tokens, key: Token, has_colon: bool) -> Entry:
    if opening := tokens.take_if(*CLOSING):
        return Entry(key.line, key.text, block=tuple(_entries(tokens, CLOSING[opening])))
    if not has_colon or tokens.next.kind not in ("word", "text"):
        raise tokens.refuse("a value" if has_colon else ": or a block")
    token = tokens.take()
    if token.kind == "word":
        return Entry(key.line, key.text, (token.text,))
    text = str(ast.literal_eval(token.text))
    while tokens.next.kind == "text":  # concatenate adjacent strings
        text += str(ast.literal_eval(tokens.take().text))
    return Entry(key.line, key.text, (text,))
