"""The view as a picture for a terminal, and its keys as they come from one."""

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

from lbmux.tools.top.readings import MOST_FLOWS, Row
from lbmux.tools.top.view import COLUMNS, FLOWS, KEYS, View

HEADINGS = {"packets_s": "packets/s", "bits_s": "bit/s", "new_flows_s": "new flows/s", "idle_s": "idle, s"}
UNITS = ("flows", "packets_s", "bits_s", "new_flows_s")
"""Columns with quantities, that may be of any size; others are numbers as they are, like a port."""
SEQUENCES = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down", b"\r": "enter", b"\n": "enter",
             b"\x7f": "backspace", b"\x08": "backspace", b"k": "up", b"j": "down"}  # fmt: skip
PARTS = (b"\x1b", b"\x1b[", b"\x1bO")
NOTES = {FLOWS: f"flows are not counted one by one: idle is since the last packet; {MOST_FLOWS} of a mux at most"}
"""Below the table, where it needs one."""
ESCAPE_S = 0.3
"""How long the rest of a key's bytes may take; Escape alone does nothing, so waiting for it costs nothing."""
ABOUT_LINES = 6
"""Of the screen, beside the table's rows."""


def render(view: View, height: int = 50) -> Group:
    """All of it, ``height`` lines at most: of the rows those around the chosen one."""
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
    at = time.strftime("%H:%M:%S", time.localtime(view.after.time)) if view.after else "pending_neighbours"
    muted = view.after.muted if view.after else {}
    silent = f"  no answer: {', '.join(muted)}" if muted else ""
    return Text(f"lbmux top  {where}  ({count})  {at}{'  PAUSED' if view.paused else ''}{silent}", style="bold")


def _note(view: View) -> Text:
    silent = ", ".join(view.after.muted) if view.after else ""
    if silent:
        return Text(f"?: what {silent} does is unknown; its program in the kernel may forward on", style="yellow")
    return Text(NOTES.get(view.level, ""), style="dim")


def _drops(view: View) -> Text:
    several = view.after is not None and len(view.after.muxes) > 1
    said = [_drop(reason, by_mux, several) for reason, by_mux in sorted(view.drops().items())]
    unknown = [f"{mux} unknown" for mux in view.unknown()]
    return Text(f"drops/s: {', '.join(said + unknown) or 'none'}", style="red" if said else "")


def _drop(reason: str, by_mux: dict[str, float], several: bool) -> str:
    """The pool's, and where there are several muxes also each one's."""
    each = ", ".join(f"{mux} {_cell(rate)}" for mux, rate in by_mux.items())
    return f"{reason} {_cell(round(sum(by_mux.values()), 1))}{f' ({each})' if several else ''}"


def _help() -> Text:
    return Text("  ".join(f"{key} {what}" for key, what in KEYS.items()), style="dim")


def _shown(row: Row, column: str, unknown: bool) -> str:
    """A row's cell.  ``unknown``: to a sum, some mux' part is missing."""
    value = row[column]
    if column not in UNITS:
        return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    if not unknown:
        return _cell(value)
    return "unknown" if value is None else f"{_cell(value)} + ?"


def _cell(value: float | None) -> str:
    """Large numbers in thousands or millions: 12.3M; what nothing counts: -."""
    if value is None:
        return "-"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.1f}{letter}"
    return f"{value:g}"


@contextlib.contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Keys one by one and unseen, as long as the context lasts."""
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def keys(descriptor: int, seconds: float) -> Iterator[str]:
    """The names of the keys that are pressed within a time: the first, and those that come with it."""
    if not select.select([descriptor], [], [], seconds)[0]:
        return
    typed = os.read(descriptor, 64)
    if not typed:  # the terminal is gone
        yield "q"
    while typed[-2:] in PARTS or typed[-1:] in PARTS:  # the rest of an arrow comes later over a slow line
        if not select.select([descriptor], [], [], ESCAPE_S)[0]:
            break
        typed += os.read(descriptor, 64)
    while typed:
        length = 3 if typed[:1] == b"\x1b" else 1
        yield SEQUENCES.get(typed[:length], typed[:length].decode(errors="replace"))
        typed = typed[length:]
