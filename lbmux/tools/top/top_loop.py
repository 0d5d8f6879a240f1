"""The loop of `lbmux top`: it takes readings from muxes or from a file, draws the screen, and handles keys."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from lbmux.api.channel import ControlTarget
from lbmux.errors import ControlError
from lbmux.tools.top.readings import Reading, recorded
from lbmux.tools.top.screen import keys, raw, render
from lbmux.tools.top.terminal_writer import TerminalWriter
from lbmux.tools.top.view import View

Source = Callable[[View], Reading | None]
"""Returns the next reading for a view; None at the end of a recording."""


def live(controls: Sequence[ControlTarget], record: TextIO | None = None) -> Source:
    """Return a source that asks running muxes. With ``record`` it asks for all backends' flows and records them."""

    def read(view: View) -> Reading:
        reading = Reading.of(controls, view.wanted_flows if record is None else view.wanted_flows or "")
        if record is not None:
            record.write(reading.line() + "\n")
            record.flush()
        return reading

    return read


def replayed(path: Path) -> Source:
    """Return a source that plays a recording.  The whole file is checked first.  A paused view stops the playback."""
    readings = iter(list(recorded(path)))
    return lambda view: view.after if view.paused and view.after else next(readings, None)


def views(source: Source, interval_s: float) -> Iterator[View]:
    """Yield the view after each reading, from the second on, since rates need two.  It ends with the source."""
    view = View()
    while (reading := _next(source, view)) is not None:
        view.take(reading)
        if view.before is not None:
            yield view
        time.sleep(interval_s)
    if view.after is not None and view.before is None:
        yield view  # a recording with a single reading


def document(view: View) -> dict[str, Any]:
    """Return services and drops as JSON.  ``unknown``: muxes that are in none of the sums."""
    at = None if view.after is None else view.after.time
    drops = view.drops()
    sums = {reason: round(sum(by_mux.values()), 1) for reason, by_mux in drops.items()}
    rates = {"services": view.rows(), "drops": sums, "drops_by_mux": drops, "unknown": view.unknown()}
    return {"version": 1, "time": at, **rates}


def watch(source: Source, interval_s: float, descriptor: int) -> None:
    """Run until `q`.  The last reading of a recording stays on the screen."""
    view, console = View(), Console()
    writer = TerminalWriter(console)
    with raw(descriptor), console.screen():
        due = 0.0
        while not view.ended:
            if time.monotonic() >= due:
                due = time.monotonic() + interval_s
                reading = _next(source, view)
                if reading is None:
                    view.paused = True
                else:
                    view.take(reading)
            writer.write(render(view, console.height))
            for key in keys(descriptor, max(0.0, due - time.monotonic())):
                view.press(key)
                if key == "enter":
                    due = 0.0  # another view may need another reading


def _next(source: Source, view: View) -> Reading | None:
    try:
        return source(view)
    except ControlError as error:
        if view.after is None:
            raise
        # The muxes restart: keep the last reading on the screen, with unknown rates.
        return replace(view.after, muted=dict.fromkeys(view.after.muxes, error.reason))
