"""Changes in the middle of a replay: a configuration that comes into force, a mux that is lost, each at a time.

Times count from the capture's first packet.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lbmux.config.loader import load
from lbmux.config.models import Config
from lbmux.errors import ConfigError, LbmuxError
from lbmux.frames.captured_frames import CapturedFrames

UNITS_NS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)", re.ASCII)
MUX = re.compile(r"mux([1-9]\d{0,3})", re.ASCII)


@dataclass(frozen=True)
class Reload:
    """A configuration that all muxes get at ``at_ns``."""

    at_ns: int
    path: Path
    config: Config

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Loss:
    """A mux that forwards nothing from ``at_ns`` on. ``mux`` counts from 0."""

    at_ns: int
    mux: int

    def __str__(self) -> str:
        return f"{name_of(self.mux)} lost"


Change = Reload | Loss


class UnusableChangeError(LbmuxError):
    """A configuration that could not come into force at ``at_ns`` of the capture."""

    path: Path
    at_ns: int
    error: LbmuxError

    def __str__(self) -> str:
        hint = f"{self.path}: cannot come into force at {text_of(self.at_ns)} of the capture"
        return f"{self.error}\n{hint}" if isinstance(self.error, ConfigError) else f"{hint}: {self.error}"


class TooLateError(LbmuxError):
    """Changes at times after the capture's last packet, at ``end_ns``."""

    changes: tuple[Change, ...]
    end_ns: int

    def __str__(self) -> str:
        return "\n".join(
            f"{change} at {text_of(change.at_ns)}: the capture ends at {text_of(self.end_ns)}"
            for change in self.changes
        )


def name_of(mux: int) -> str:
    return f"mux{mux + 1}"


def text_of(time_ns: int) -> str:
    """Return a time in seconds: 5 s, 0.25 s."""
    return f"{time_ns / 1e9:.9f}".rstrip("0").rstrip(".") + " s"


def parse_time(text: str) -> int:
    """Return nanoseconds: `5s`, `1.5s`, `200ms`, `2m`, `1h`. Raise ValueError for any other text."""
    match = TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time, such as 5s, 1.5s, 200ms or 2m")
    return round(float(match[1]) * UNITS_NS[match[2]])


def parse_reload(text: str) -> tuple[int, Path]:
    """Split `TIME=FILE`. Raise ValueError."""
    time, equals, path = text.partition("=")
    if not (equals and path):
        raise ValueError(f"{text!r} is not TIME=FILE, such as 5s=new.yaml")
    return parse_time(time), Path(path)


def parse_loss(text: str) -> tuple[int, int]:
    """Return (time in nanoseconds, index of the mux) of `MUX@TIME`. Raise ValueError."""
    name, at, time = text.partition("@")
    match = MUX.fullmatch(name)
    if not at or match is None:
        raise ValueError(f"{text!r} is not MUX@TIME, such as mux1@10s")
    return parse_time(time), int(match[1]) - 1


def load_reloads(files: Sequence[tuple[int, Path]]) -> list[Reload]:
    """Load the configurations; raise UnusableChangeError for the first that is invalid."""
    reloads = []
    for at_ns, path in files:
        try:
            reloads.append(Reload(at_ns, path, load(path)))
        except ConfigError as error:
            raise UnusableChangeError(path, at_ns, error) from error
    return reloads


class Timeline:
    """Cuts batches where changes come into force."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self.pending = sorted(changes, key=lambda change: change.at_ns)
        self.start_ns = 0
        """The time of the first packet, in nanoseconds since 1970."""
        self._has_begun = False
        self.latest_ns = 0
        """The latest time so far, from the first packet on."""

    def parts(self, frames: CapturedFrames) -> Iterator[tuple[list[Change], CapturedFrames]]:
        """Yield (changes, the frames after them). Time never goes back: a late packet counts as sent when it came."""
        times = np.maximum.accumulate(frames.time_ns[: frames.count])
        if not self._has_begun:
            self.start_ns, self._has_begun = int(times[0]), True
        times = np.maximum(times - self.start_ns, self.latest_ns)
        self.latest_ns, first, due = int(times[-1]), 0, list[Change]()
        while self.pending and self.pending[0].at_ns <= self.latest_ns:
            end = int(np.searchsorted(times, self.pending[0].at_ns))
            if end > first:
                yield due, frames.part(first, end)
                first, due = end, []
            due.append(self.pending.pop(0))
        yield due, frames.part(first, frames.count)

    def check(self) -> None:
        """Raise TooLateError if changes are still pending at the capture's end."""
        if self.pending:
            raise TooLateError(tuple(self.pending), self.latest_ns)
