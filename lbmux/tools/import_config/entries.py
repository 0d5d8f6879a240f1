"""Entries of another load balancer's file, none of which is dropped silently.

A parser (`text_protobuf`, `keepalived_syntax`) makes a tree of entries. The converter of a block takes the entries that
it knows; all others end in the list of what was left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lbmux.errors import Problem


@dataclass(frozen=True)
class Entry:
    """A key with its words and, perhaps, a block of entries. ``line`` counts from 1."""

    line: int
    key: str
    words: tuple[str, ...] = ()
    block: tuple["Entry", ...] | None = None

    @property
    def word(self) -> str:
        """The first word; empty if there is none."""
        return self.words[0] if self.words else ""


class Block:
    """The entries of one block; ``left`` collects what is left out, with ``path`` before each key."""

    def __init__(self, entries: Sequence[Entry], left: list[Problem], path: str = "", line: int = 0) -> None:
        self._entries, self._taken = entries, set[int]()
        self.left, self._path, self.line = left, path, line

    def all(self, *keys: str) -> list[Entry]:
        """Take all entries with one of these keys."""
        matches = [(at, entry) for at, entry in enumerate(self._entries) if entry.key in keys]
        self._taken |= {at for at, _ in matches}
        return [entry for _, entry in matches]

    def blocks(self, *keys: str) -> Iterator[tuple[Entry, "Block"]]:
        """Take all blocks with one of these keys."""
        for entry in self.all(*keys):
            yield entry, Block(entry.block or (), self.left, f"{self._path}{entry.key}.", entry.line)

    def last(self, *keys: str) -> Entry | None:
        """Take the last entry with one of these keys, which is the one in force."""
        entries = self.all(*keys)
        for entry in entries[:-1]:
            self.leave(entry, f"line {entries[-1].line} takes precedence")
        return entries[-1] if entries else None

    def word(self, *keys: str, default: str = "") -> str:
        entry = self.last(*keys)
        return default if entry is None else entry.word

    def number(self, *keys: str, default: float) -> float:
        """Take a number; leave it out if it is not one."""
        entry = self.last(*keys)
        if entry is None:
            return default
        try:
            return plain_number(float(entry.word))
        except ValueError:
            self.leave(entry, f"{entry.word or 'nothing'} is not a number")
            return default

    def leave(self, entry: Entry, why: str) -> None:
        own = f"{entry.key}."
        path = self._path.removesuffix(own) if self.line == entry.line else self._path
        self.left.append(Problem(entry.line, f"{path}{entry.key}", why))

    def remark(self, key: str, why: str) -> None:
        """Report something about the block as a whole."""
        self.left.append(Problem(self.line, f"{self._path}{key}", why))

    def leave_rest(self, reasons: Mapping[str, str]) -> None:
        """Leave out all entries that were not taken, with the reasons by key."""
        for at, entry in enumerate(self._entries):
            if at not in self._taken:
                self.leave(entry, reasons.get(entry.key, "is not a key that lbmux knows"))


def plain_number(value: float) -> float:
    """Return a whole number as an integer, which reads better in a file."""
    return int(value) if value == int(value) else value
