"""What goes to the terminal is what changed."""

import io
import re

from rich.console import Console

from lbmux.tools.top.terminal_writer import TerminalWriter


class Screen:
    """A painter, and what it has written since the last time."""

    def __init__(self) -> None:
        self.console = Console(
            file=io.StringIO(), force_terminal=True, width=40, height=5, legacy_windows=False, _environ={}
        )
        self._painter, self._at = TerminalWriter(self.console), 0

    def write(self, *lines: str) -> str:
        self._painter.write("\n".join(lines))
        assert isinstance(self.console.file, io.StringIO)
        written = self.console.file.getvalue()
        self._at, start = len(written), self._at
        return written[start:]

    def changed(self, *lines: str) -> dict[int, str]:
        """Return the written lines by number."""
        lines_written = re.findall(r"\x1b\[(\d+);1H\x1b\[K([^\x1b]*)", self.write(*lines))
        return {int(number): text for number, text in lines_written}


def test_at_first_all_is_written() -> None:
    assert Screen().changed("one", "two") == {1: "one", 2: "two"}


def test_later_only_changed_lines_are_written() -> None:
    screen = Screen()
    screen.changed("one", "two", "three")
    assert screen.changed("one", "TWO", "three") == {2: "TWO"}
    assert screen.write("one", "TWO", "three") == ""


def test_lines_that_are_gone_are_emptied_once() -> None:
    screen = Screen()
    screen.changed("one", "two", "three")
    assert screen.changed("one") == {2: "", 3: ""}
    assert screen.changed("one") == {}


def test_another_size_clears_the_screen_and_writes_all() -> None:
    screen = Screen()
    screen.changed("one", "two")
    screen.console.width = 50
    written = screen.write("one", "two")
    assert "\x1b[2J" in written and "one" in written and "two" in written


def test_nothing_is_written_below_the_screen() -> None:
    assert list(Screen().changed(*"abcdefgh")) == [1, 2, 3, 4, 5]
