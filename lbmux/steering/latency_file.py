"""Puts round-trip times that agents report into the latency file of `lbmux steer`."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from lbmux.errors import ConfigError, Problem
from lbmux.steering.measurements import LATENCY_COLUMNS

Row = Sequence[str]


class Reported(Protocol):
    """What an agent reports of a group of clients (lbmux.api.answers.RoundTripLine)."""

    @property
    def prefix(self) -> str: ...
    @property
    def rtt_ms(self) -> float: ...
    @property
    def low_ms(self) -> float: ...
    @property
    def high_ms(self) -> float: ...
    @property
    def samples(self) -> int: ...
    @property
    def time(self) -> float: ...


def with_reports(rows: Iterable[Row], pop: str, reports: Iterable[Reported]) -> list[Row]:
    """Return the file's rows with what the agents of a PoP report; earlier rows of other prefixes stay.

    Agents that report the same prefix count by their numbers of connections.
    """
    by_prefix: dict[str, list[Reported]] = {}
    for one in reports:
        by_prefix.setdefault(one.prefix, []).append(one)
    kept = [row for row in rows if row[1] != pop or row[0] not in by_prefix]
    return kept + [_row(prefix, pop, several) for prefix, several in by_prefix.items()]


def _row(prefix: str, pop: str, several: Sequence[Reported]) -> Row:
    samples = sum(one.samples for one in several)
    times_ms = [
        sum(getattr(one, name) * one.samples for one in several) / samples for name in ("rtt_ms", "low_ms", "high_ms")
    ]
    newest = max(one.time for one in several)
    return [prefix, pop, *(f"{time_ms:.3f}" for time_ms in times_ms), str(samples), f"{newest:.0f}"]


def update(path: Path, pop: str, reports: Iterable[Reported]) -> None:
    """Update the file atomically, or make it. Raise ConfigError if it cannot be read or written."""
    try:
        rows = [*csv.reader(io.StringIO(path.read_text()))] if path.exists() else []
        if rows and rows[0] != [*LATENCY_COLUMNS]:
            raise ConfigError(path, (Problem(1, "", f"should begin with the columns {','.join(LATENCY_COLUMNS)}"),))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([LATENCY_COLUMNS, *with_reports((row for row in rows[1:] if row), pop, reports)])
        new = path.with_name(f".{path.name}.new")
        new.write_text(text.getvalue())
        new.replace(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(path, (Problem(None, "", f"cannot be updated: {error}"),)) from error
