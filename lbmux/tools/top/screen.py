"""Render the view for a terminal, and read keys from it."""

import contextlib
import os
import select
import termios
import time
import tty
from collections.abc import Iterator

from rich.console import Group
from rich.table import Table
from rich.text import Text

from lbmux.tools.top.readings import MOST_FLOWS
from lbmux.tools.top.top_rows import Row
from lbmux.tools.top.view import COLUMNS, FLOWS, KEYS, View

HEADINGS = {"packets_s": "packets/s", "bits_s": "bit/s", "new_flows_s": "new flows/s", "idle_s": "idle, s"}
UNITS = ("flows", "packets_s", "bits_s", "new_flows_s")
"""Columns with quantities, which are abbreviated; other numbers, like ports, are shown in full."""
SEQUENCES = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down", b"\r": "enter", b"\n": "enter",
             b"\x7f": "backspace", b"\x08": "backspace", b"k": "up", b"j": "down"}  # fmt: skip
PARTS = (b"\x1b", b"\x1b[", b"\x1bO")
NOTES = {FLOWS: f"flows have no counters: idle is the time since the last packet; at most {MOST_FLOWS} per mux"}
"""A note below the table, by level."""
ESCAPE_S = 0.3
"""How long to wait for the rest of an escape sequence.  Escape alone does nothing."""
ABOUT_LINES = 6
"""Lines of the screen that are not table rows."""


def render(view: View, height: int = 50) -> Group:
    """Render the view in at most ``height`` lines, with the rows around the chosen one."""
    rows, most = view.rows(), max(1, height - ABOUT_LINES)
    at = next((at for at, row in enumerate(rows) if view.is_chosen(row, at)), 0)
    first = max(0, min(at - most // 2, len(rows) - most))
    table = Table(box=None, pad_edge=False, expand=True)
    for column in COLUMNS[view.level]:
        mark = (" ▼" if view.reversed else " ▲") if column == view.column else ""
        is_number = column in UNITS or any(isinstance(row[column], int | float) for row in rows)
        table.add_column(HEADINGS.get(column, column) + mark, justify="right" if is_number else "left", no_wrap=True)
    for number, row in enumerate(rows[first : first + most], first):
        cells = [_shown(row, column, bool(view.unknown())) for column in COLUMNS[view.level]]
        table.add_row(*cells, style="reverse" if number == at else "")
    return Group(_title(view, len(rows)), _drops(view), table, _note(view), _help())


def _title(view: View, count: int) -> Text:
    where = " › ".join(("services", *filter(None, (view.service, view.backend))))
    at = time.strftime("%H:%M:%S", time.localtime(view.after.time)) if view.after else "waiting"
    muted = view.after.muted if view.after else {}
    silent = f"  no answer: {', '.join(muted)}" if muted else ""
    return Text(f"lbmux top  {where}  ({count})  {at}{'  PAUSED' if view.paused else ''}{silent}", style="bold")


def _note(view: View) -> Text:
    silent = ", ".join(view.after.muted) if view.after else ""
    if silent:
        return Text(f"?: the rates of {silent} are unknown; its kernel program may still forward", style="yellow")
    return Text(NOTES.get(view.level, ""), style="dim")


def _drops(view: View) -> Text:
    several = view.after is not None and len(view.after.muxes) > 1
    texts = [_drop(reason, by_mux, several) for reason, by_mux in sorted(view.drops().items())]
    unknown = [f"{mux} unknown" for mux in view.unknown()]
    return Text(f"drops/s: {', '.join(texts + unknown) or 'none'}", style="red" if texts else "")


def _drop(reason: str, by_mux: dict[str, float], several: bool) -> str:
    """Return the pool's rate and, with several muxes, each mux's."""
    each = ", ".join(f"{mux} {_cell(rate)}" for mux, rate in by_mux.items())
    return f"{reason} {_cell(round(sum(by_mux.values()), 1))}{f' ({each})' if several else ''}"


def _help() -> Text:
    return Text("  ".join(f"{key} {what}" for key, what in KEYS.items()), style="dim")


def _shown(row: Row, column: str, unknown: bool) -> str:
    """Return a cell's text.  ``unknown``: sums lack the part of some mux."""
    value = row[column]
    if column not in UNITS:
        return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    if not unknown:
        return _cell(value)
    return "unknown" if value is None else f"{_cell(value)} + ?"


def _cell(value: float | None) -> str:
    """Return a number, abbreviated if it is large (12.3M); - for None."""
    if value is None:
        return "-"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.1f}{letter}"
    return f"{value:g}"


@contextlib.contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Read keys one by one without echo within the context."""
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def keys(descriptor: int, seconds: float) -> Iterator[str]:
    """Yield the names of the keys pressed within a time: the first, and those that arrive with it."""
    if not select.select([descriptor], [], [], seconds)[0]:
        return
    typed = os.read(descriptor, 64)
    if not typed:  # the terminal is gone
        yield "q"
    while typed[-2:] in PARTS or typed[-1:] in PARTS:  # on a slow line, the rest of an arrow key arrives later
        if not select.select([descriptor], [], [], ESCAPE_S)[0]:
            break
        typed += os.read(descriptor, 64)
    while typed:
        length = 3 if typed[:1] == b"\x1b" else 1
        yield SEQUENCES.get(typed[:length], typed[:length].decode(errors="replace"))
        typed = typed[length:]
