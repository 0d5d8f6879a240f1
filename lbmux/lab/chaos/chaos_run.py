"""One chaos run: a schedule is carried out under real connections while invariants are checked."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from lbmux.errors import ControlError, LbmuxError
from lbmux.lab.chaos.invariants import Hits, Processes, Usage, Violation, broken, unsettled
from lbmux.lab.chaos.schedule import Change, Step, changes
from lbmux.lab.scoreboard.experiment import Load
from lbmux.lab.scoreboard.scoreboard_events import EVENTS
from lbmux.lab.scoreboard.system_under_test import SystemUnderTest
from lbmux.lab.topology import ECHO_PORT, VIP
from lbmux.lab.traffic_client import Client, traffic

CHECK_S, CALM_S, ANSWERED_S = 1.0, 2.0, 30.0
"""Time between two checks; calm at the end; time until no connection is stuck any more."""
Say = Callable[[str], None]


@dataclass
class Result:
    """What a run did and saw.  ``own``: broken connections by the event that hit them.  ``refused``: new ones."""

    steps: int = 0
    seconds: float = 0.0
    connections: int = 0
    own: dict[str, int] = field(default_factory=dict)
    answered: int = 0
    refused: int = 0
    longest_stall_ms: float = 0.0
    most: Usage = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)


class ChaosRun:
    """A run on a system that is up and normal, up to the first violation."""

    def __init__(self, system: SystemUnderTest, load: Load, say: Say) -> None:
        self._system, self._load, self._say = system, load, say
        self._hits, self._processes, self.result = Hits(), Processes(system), Result()
        self._begun = time.monotonic()

    def run(self, steps: Sequence[Step]) -> Result:
        load = ("--connections", str(self._load.connections), "--short-per-s", str(self._load.short_per_s))
        options = (*load, "--pause-ms", str(self._load.pause_ms), "--reopen")
        with traffic(self._system.lab, "client", VIP, ECHO_PORT, *options) as client:
            self._begun = time.monotonic()
            self._judge(client.first)
            self._follow(client, changes(steps))
            if not self.result.violations:
                self._settle(client)
        self.result.seconds = round(self._now, 1)
        self.result.most = self._processes.most
        return self.result

    @property
    def _now(self) -> float:
        return round(time.monotonic() - self._begun, 1)

    def _follow(self, client: Client, planned: Sequence[Change]) -> None:
        """Carry out changes, each at its time or as soon as those before it are done; undo what has begun."""
        begun: list[Step] = []
        for change in planned:
            if self._check_until(client, change.at_s) and change.happens:
                break
            if change.happens:
                self._change(change)
                begun.append(change.step)
            elif change.step in begun:
                begun.remove(change.step)
                self._change(change)
        for step in reversed(begun):
            self._change(Change(self._now, step, False))

    def _change(self, change: Change) -> None:
        step, event = change.step, EVENTS[change.step.event]
        self._say(f"{self._now:6.1f} s  {'' if change.happens else 'undo '}{step.event} {step.mux} {step.backend}")
        self._system.aim(step.mux, step.backend)
        if change.happens:
            self.result.steps += 1
        try:
            (event.happen if change.happens else event.undo)(self._system)
        except LbmuxError as error:
            if not (isinstance(error, ControlError) and "No space left" in str(error)):
                self._violated([Violation(self._now, f"{step.event}: {error}")])
        if change.happens:
            self._hits.begin(step)
        else:
            self._hits.end(step, time.monotonic())

    def _check_until(self, client: Client, at_s: float) -> bool:
        """Check once a second until that time; return whether anything was violated."""
        while not self.result.violations:
            self._check(client)
            if self._now >= at_s:
                break
            time.sleep(max(0.0, min(CHECK_S, at_s - self._now)))
        return bool(self.result.violations)

    def _check(self, client: Client) -> None:
        self._judge(client.report())
        self._violated(self._processes.check(self._now))

    def _judge(self, report: dict[str, Any]) -> None:
        result, ended = self.result, [one for one in report["connections"] if one["broken"]]
        found = list(broken(report, self._hits, self._now))
        self._violated(found)
        result.connections = max(result.connections, len(report["connections"]))
        for cause in filter(None, map(self._hits.cause, ended)):
            result.own[cause] = result.own.get(cause, 0) + 1
        result.answered += sum(report["short"]["answered"].values())
        result.refused += Counter(report["short"]["failed"]).total()
        stalls = [one["longest_stall_ms"] for one in report["connections"] if not one["broken"]]
        result.longest_stall_ms = max([result.longest_stall_ms, *stalls])

    def _settle(self, client: Client) -> None:
        """Wait until the system is normal and no connection is stuck; then nothing fails for a while."""
        try:
            self._system.wait_until_normal()
        except LbmuxError as error:
            self._violated([Violation(self._now, str(error))])
            return
        self._judge(client.report_once_answered(ANSWERED_S))
        time.sleep(CALM_S)
        report = client.report()
        self._judge(report)
        self._violated(unsettled(report, self._hits, self._now))
        self._violated(self._processes.check(self._now))

    def _violated(self, found: Iterator[Violation] | Sequence[Violation]) -> None:
        for one in found:
            self._say(f"{one.at_s:6.1f} s  VIOLATED: {one.what}")
            self.result.violations.append(one)
