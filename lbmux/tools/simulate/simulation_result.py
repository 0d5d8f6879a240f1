"""The result of a simulation: rows for the terminal, CSV and JSON, and panels for the plot.

Names of columns end in their unit.  A column of repeats has a `Spread`, which CSV and JSON show as three columns.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from lbmux.errors import LbmuxError

Tell = Callable[[float], None]
"""Gets the share of the work that is done, 0 to 1."""


def no_progress(_: float) -> None:
    """A `Tell` that shows nothing."""


def digits(number: float) -> str:
    """Format a number with three significant digits, or as an integer if it has more digits before the point."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


@dataclass(frozen=True)
class Spread:
    """The median of a number over repeats, and its range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(float(median(values)), float(min(values)), float(max(values)))

    def __str__(self) -> str:
        if self.low == self.high:
            return digits(self.median)
        return f"{digits(self.median)} ({digits(self.low)}..{digits(self.high)})"


Value = str | int | float | Spread | None
Row = dict[str, Value]


@dataclass(frozen=True)
class Line:
    """Points of one colour; ``low`` and ``high``, if any, are their range over repeats."""

    label: str
    x: Sequence[float | str]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()

    @classmethod
    def of(cls, label: str, points: Sequence[tuple[float | str, Spread]]) -> "Line":
        spreads = [spread for _, spread in points]
        low, high = [one.low for one in spreads], [one.high for one in spreads]
        return cls(label, [x for x, _ in points], [one.median for one in spreads], low, high)


@dataclass(frozen=True)
class Panel:
    """One diagram.  ``x`` and ``y`` name the axes, with units."""

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    kind: Literal["lines", "bars"] = "lines"


@dataclass(frozen=True)
class SimulationResult:
    """``parameters``: what the simulation was run with, the seed included."""

    simulation: str
    title: str
    parameters: dict[str, Any]
    rows: Sequence[Row]
    panels: Sequence[Panel]
    notes: Sequence[str] = field(default=())

    def document(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints and `lbmux plot` reads."""
        return {
            "version": 1, "simulation": self.simulation, "title": self.title, "parameters": self.parameters,
            "rows": [*map(plain, self.rows)], "panels": [asdict(panel) for panel in self.panels],
            "notes": [*self.notes],
        }  # fmt: skip

    def write_csv(self, path: Path) -> None:
        """Write the rows with a header line; raise LbmuxError if the file cannot be written."""
        rows = [*map(plain, self.rows)]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        try:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
        except OSError as error:
            raise LbmuxError(f"{path}: {error.strerror}") from error


def plain(row: Row) -> dict[str, Any]:
    """Return the row with each spread as NAME, NAME_low and NAME_high."""
    return dict(_columns(row))


def _columns(row: Row) -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Spread):
            yield from ((name, value.median), (f"{name}_low", value.low), (f"{name}_high", value.high))
        else:
            yield name, value
