"""The input of `lbmux top`: counters of one or several muxes at a time, live or from a recording."""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lbmux.api.control_socket import ask, ask_list, ask_stream
from lbmux.errors import ControlError, LbmuxError

FORMAT = 1
MOST_FLOWS = 200
TIMEOUT_S = 5.0
"""A mux that hangs must not block the keys for longer."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Counts:
    """One mux's counters.  ``flows``: at most MOST_FLOWS entries, of one backend or of all."""

    services: list[Row]
    backends: list[Row]
    verdicts: list[Row]
    flows: list[Row]

    @classmethod
    def of(cls, control: Path, flows: str | None) -> "Counts":
        """``flows``: a filter as for `show flows`, None for no flows.  ControlError if the mux does not answer."""
        entries: list[Row] = []
        if flows is not None:
            for part in ask_stream(control, "flows", filter=flows, limit=MOST_FLOWS, timeout_s=TIMEOUT_S):
                entries += part["flows"]
        verdicts = ask(control, "counters", timeout_s=TIMEOUT_S)["verdicts"]
        return cls(ask_list(control, "services"), ask_list(control, "backends"), verdicts, entries)


@dataclass(frozen=True)
class Reading:
    """Counters by mux at a time (seconds since the epoch).  ``muted``: the reasons of muxes that did not answer."""

    time: float
    muxes: dict[str, Counts]
    muted: dict[str, str]

    @classmethod
    def of(cls, controls: Sequence[Path], flows: str | None = None) -> "Reading":
        """ControlError if none of them answers."""
        muxes: dict[str, Counts] = {}
        muted: dict[str, ControlError] = {}
        with ThreadPoolExecutor(len(controls)) as threads:
            answers = [(name, threads.submit(Counts.of, path, flows)) for name, path in _named(controls).items()]
            for name, answer in answers:
                try:
                    muxes[name] = answer.result()
                except ControlError as error:
                    muted[name] = error
        if not muxes:
            raise next(iter(muted.values()))
        return cls(time.time(), muxes, {name: error.reason for name, error in muted.items()})

    def line(self) -> str:
        """The reading as a line of a recording."""
        return json.dumps({"version": FORMAT, **asdict(self)})


def recorded(path: Path) -> Iterator[Reading]:
    """The readings in a file.  LbmuxError with the number of a line that is not a reading."""
    try:
        with path.open() as lines:
            for number, line in enumerate(lines, 1):
                try:
                    said = json.loads(line)
                    if said.pop("version") != FORMAT:
                        raise ValueError("another version")
                    muxes = {name: Counts(**counts) for name, counts in said.pop("muxes").items()}
                    yield Reading(muxes=muxes, **said)
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                    raise LbmuxError(f"{path}:{number}: not a reading of `lbmux top`: {error!r}") from error
    except OSError as error:
        raise LbmuxError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LbmuxError(f"{path}: not a recording of `lbmux top`: it is not text") from error


def _named(controls: Sequence[Path]) -> dict[str, Path]:
    """Sockets by name, `mux1` for mux1.sock; by full path if two have the same name."""
    stems = [path.stem for path in controls]
    return {str(path) if stems.count(path.stem) > 1 else path.stem: path for path in controls}
