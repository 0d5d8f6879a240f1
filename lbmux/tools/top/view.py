"""The state of `lbmux top`: what it shows of the readings, and how keys change that. It needs no terminal."""

from dataclasses import dataclass, field
from typing import Any

from lbmux.tools.top.readings import Reading
from lbmux.tools.top.top_rows import Row, backend_rows, drops, flow_rows, service_rows, unknown

SERVICES, BACKENDS, FLOWS = "services", "backends", "flows"
COLUMNS = {
    SERVICES: ("service", "address", "up", "flows", "packets_s", "bits_s", "new_flows_s"),
    BACKENDS: ("backend", "dip", "state", "weight", "flows", "packets_s", "bits_s", "new_flows_s"),
    FLOWS: ("client", "port", "mux", "backend", "state", "idle_s"),
}
KEYS = {
    "↑ ↓ j k": "choose", "enter": "open", "backspace": "back", "s": "next sort", "r": "reverse",
    "p": "pause", "q": "quit",
}  # fmt: skip
"""The help line: keys, separated by blanks, and what they do."""


@dataclass
class View:
    """``service`` and ``backend``: the levels that are open.  ``chosen``: the selected row's first column."""

    service: str = ""
    backend: str = ""
    chosen: str = ""
    paused: bool = False
    ended: bool = False
    sorted_by: dict[str, str] = field(default_factory=dict)
    reversed: bool = True
    before: Reading | None = None
    after: Reading | None = None

    @property
    def level(self) -> str:
        return FLOWS if self.backend else BACKENDS if self.service else SERVICES

    @property
    def column(self) -> str:
        return self.sorted_by.get(self.level, "idle_s" if self.level == FLOWS else "packets_s")

    @property
    def wanted_flows(self) -> str | None:
        """A filter, as for `show flows`, for the flows that the next reading needs; None if no flows are shown."""
        return f"service {self.service} and backend {self.backend}" if self.level == FLOWS else None

    def take(self, reading: Reading) -> None:
        """Take a new reading.  A paused view ignores it, unless it lacks the flows that are now shown."""
        wanted = not self.paused or (self.level == FLOWS and not self.rows())
        if wanted and reading is not self.after:
            self.before, self.after = self.after, reading

    def rows(self) -> list[Row]:
        if self.after is None:
            return []
        before = self.before or self.after
        if self.level == FLOWS:
            rows = flow_rows(self.after, self.service, self.backend)
        elif self.level == BACKENDS:
            rows = backend_rows(before, self.after, self.service)
        else:
            rows = service_rows(before, self.after)
        return sorted(rows, key=lambda row: _comparable(row[self.column]), reverse=self.reversed)

    def drops(self) -> dict[str, dict[str, float]]:
        """Drops per second by verdict and mux."""
        return {} if self.before is None or self.after is None else drops(self.before, self.after)

    def unknown(self) -> list[str]:
        """Return the muxes whose rates are unknown."""
        return [] if self.after is None else unknown(self.before or self.after, self.after)

    def press(self, key: str) -> None:
        """Handle a key by name; ignore unknown keys."""
        names = [self._name(row) for row in self.rows()]
        at = names.index(self.chosen) if self.chosen in names else 0
        if key == "q":
            self.ended = True
        elif key == "p":
            self.paused = not self.paused
        elif key == "r":
            self.reversed = not self.reversed
        elif key == "s":
            columns = COLUMNS[self.level]
            self.sorted_by[self.level] = columns[(columns.index(self.column) + 1) % len(columns)]
        elif key in ("up", "down") and names:
            self.chosen = names[min(max(at + (1 if key == "down" else -1), 0), len(names) - 1)]
        elif key == "enter" and names and self.level != FLOWS:
            self._into(names[at])
        elif key == "backspace":
            self._back()

    def is_chosen(self, row: Row, at: int) -> bool:
        return self._name(row) == self.chosen if self.chosen else at == 0

    def _name(self, row: Row) -> str:
        columns = COLUMNS[self.level]
        return " ".join(str(row[name]) for name in (columns[:3] if self.level == FLOWS else columns[:1]))

    def _into(self, name: str) -> None:
        if self.level == SERVICES:
            self.service = name
        else:
            self.backend = name
        self.chosen = ""

    def _back(self) -> None:
        if self.backend:
            self.chosen, self.backend = self.backend, ""
        elif self.service:
            self.chosen, self.service = self.service, ""


def _comparable(value: Any) -> tuple[int, Any]:
    """Return a sort key for mixed columns: None first, then numbers, then text."""
    return (0, 0) if value is None else (2, value) if isinstance(value, str) else (1, value)
