"""The input of `lbmux top`: counters of one or several muxes at a time, live or from a recording."""

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lbmux.api.answers import BackendLine, FlowLine, ServiceLine, VerdictLine
from lbmux.api.channel import ControlTarget
from lbmux.api.control_client import ControlClient
from lbmux.api.control_paths import named_targets
from lbmux.api.counter_rates import CounterSnapshot
from lbmux.api.protocol import from_plain, to_json
from lbmux.api.requests import GetBackends, GetCounters, GetFlows, GetServices
from lbmux.errors import ControlError, LbmuxError

FORMAT = 1
MOST_FLOWS = 200
MOST_LINE_CHARACTERS = 1 << 26
"""The longest line of a recording: over ten times as much as the counters of the largest pool."""
TIMEOUT_S = 5.0
"""A mux that hangs must not block the keys for longer."""


@dataclass(frozen=True)
class Counts:
    """One mux's counters.  ``flows``: at most MOST_FLOWS entries, of one backend or of all."""

    services: list[ServiceLine]
    backends: list[BackendLine]
    verdicts: list[VerdictLine]
    flows: list[FlowLine]

    @classmethod
    def of(cls, control: ControlTarget, flows: str | None) -> "Counts":
        """``flows``: a filter as for `show flows`, None for no flows. Raise ControlError if the mux does not answer."""
        client = ControlClient(control, TIMEOUT_S)
        parts = () if flows is None else client.stream(GetFlows(flows, limit=MOST_FLOWS))
        entries = [flow for part in parts for flow in part.flows]
        verdicts = client.ask(GetCounters()).verdicts
        services, backends = client.whole(GetServices()).services, client.whole(GetBackends()).backends
        return cls(services, backends, verdicts, entries)


@dataclass(frozen=True)
class Reading:
    """Counters by mux at a time (seconds since the epoch).  ``muted``: the reasons of muxes that did not answer."""

    time: float
    muxes: dict[str, Counts]
    muted: dict[str, str]

    @classmethod
    def of(cls, controls: Sequence[ControlTarget], flows: str | None = None) -> "Reading":
        """Raise ControlError if none of them answers."""
        muxes: dict[str, Counts] = {}
        muted: dict[str, ControlError] = {}
        with ThreadPoolExecutor(len(controls)) as threads:
            answers = [(name, threads.submit(Counts.of, path, flows)) for name, path in named_targets(controls).items()]
            for name, answer in answers:
                try:
                    muxes[name] = answer.result()
                except ControlError as error:
                    muted[name] = error
        if not muxes:
            raise next(iter(muted.values()))
        return cls(time.time(), muxes, {name: error.reason for name, error in muted.items()})

    def snapshot(self, mux: str) -> CounterSnapshot:
        counts = self.muxes[mux]
        return CounterSnapshot(self.time, counts.backends, counts.verdicts)

    def line(self) -> str:
        """Return the reading as a line of a recording."""
        return to_json({"version": FORMAT, **vars(self)})


def recorded(path: Path) -> Iterator[Reading]:
    """Yield the readings in a file.  LbmuxError with the number of a line that is not a reading."""
    try:
        with path.open() as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MOST_LINE_CHARACTERS), ""), 1):
                try:
                    document = json.loads(line)
                    if document["version"] != FORMAT:
                        raise ValueError("another version")
                    reading: Reading = from_plain(Reading, document)
                    yield reading
                except (ValueError, TypeError, KeyError, RecursionError) as error:
                    raise LbmuxError(f"{path}:{number}: not a reading of `lbmux top`: {error!r}") from error
    except OSError as error:
        raise LbmuxError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LbmuxError(f"{path}: not a recording of `lbmux top`: it is not text") from error
