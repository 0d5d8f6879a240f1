"""What must hold at any time of a chaos run, and what was seen when it does not.

Connections: none answers from another server than before, and none breaks unless an event hit its own server, and no
line that was sent after the event was answered.  Processes: memory, descriptors and pins stay within bounds.  Counters
of packets that the lab never sends do not move.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbmux.api.requests import GetCounters
from lbmux.errors import ControlError, LabError
from lbmux.lab.chaos.chaos_system import HEALTH
from lbmux.lab.chaos.schedule import EVENTS, Step
from lbmux.lab.connections import STUCK_MS
from lbmux.lab.scoreboard.system_under_test import SystemUnderTest
from lbmux.plurals import counted
from lbmux.targets.bpf import pins

STILL = ("malformed", "truncated", "no_headroom", "out_of_table", "not_a_mux", "denied")
"""Verdicts of packets that no client, mux or host of the lab sends."""
MORE_MEMORY_KB, MORE_DESCRIPTORS = 128 << 10, 64
"""What a process may have beyond what it has before the first event."""
PINS_GENERATIONS = 2
"""A swap of tables has both at once."""
WRONG = ("answers for", "to line")
"""Parts of the reasons for which no event is an excuse (lbmux.lab.connections)."""
DETECTED_S = HEALTH["fall"] * (HEALTH["interval_s"] + HEALTH["timeout_s"]) + 1.0
"""A backend that fails until now is declared dead within this time, and its connections are reset."""
Usage = dict[str, int]


@dataclass(frozen=True)
class Violation:
    """What did not hold, and when it was seen (seconds since the first connection)."""

    at_s: float
    what: str


@dataclass
class Hit:
    """An event that hit a backend's server or the agent in front of it.  ``until``: when its effects are over."""

    step: Step
    until: float = math.inf


class Hits:
    """Which events hit which backends when, on the monotonic clock."""

    def __init__(self) -> None:
        self._hits: list[Hit] = []

    def begin(self, step: Step) -> None:
        """Note that an event has taken effect."""
        if EVENTS[step.event] == "host":
            self._hits.append(Hit(step))

    def end(self, step: Step, now: float) -> None:
        """Note that an event was undone.  For a while muxes may still declare the backend dead."""
        for hit in self._hits:
            if hit.step is step:
                hit.until = now + DETECTED_S

    def cause(self, connection: dict[str, Any]) -> str:
        """Return the event that hit the connection, or nothing: one after which its server answered no line any more.

        A connection has survived an event if a line that was sent after it was answered.  Answers may be read late.
        """
        return next(
            (
                hit.step.event
                for hit in self._hits
                if hit.step.backend == connection["backend"] and connection["asked_at"] < hit.until
            ),
            "",
        )


def broken(report: dict[str, Any], hits: Hits, now_s: float) -> Iterator[Violation]:
    """Judge the long connections of a report; one that had no answer yet has no server that could be hit."""
    for one in report["connections"]:
        reason, backend = one["broken"], one["backend"]
        if reason and (any(text in reason for text in WRONG) or (backend and not hits.cause(one))):
            yield Violation(now_s, f"connection from port {one['local_port']} to {backend or 'no server'}: {reason}")


def unsettled(report: dict[str, Any], hits: Hits, now_s: float) -> Iterator[Violation]:
    """Judge a report of a time in which nothing was in force: nothing waits or fails."""
    for one in report["connections"]:
        waits = not one["broken"] and one["longest_stall_ms"] > STUCK_MS
        if waits and one["backend"] and not hits.cause(one):
            yield Violation(now_s, f"connection from port {one['local_port']} to {one['backend']}: no answer for "
                            f"{one['longest_stall_ms']:.0f} ms with no event in force")  # fmt: skip
    for reason, count in report["short"]["failed"].items():
        yield Violation(now_s, f"{counted(count, 'new connection')} with no event in force: {reason}")


class Processes:
    """The muxes and agents of a lab, against what they had at first."""

    def __init__(self, system: SystemUnderTest) -> None:
        self._system = system
        self._first: dict[str, Usage] = {}
        self._still: dict[tuple[str, str], int] = {}
        self.most: Usage = {}
        """The most of each that any process had."""

    def check(self, now_s: float) -> Iterator[Violation]:
        for program in (self._system.scenario.forwarder, "agent"):
            for node in self._system.reachable(program):
                yield from self._bounded(program, node, now_s)
                yield from self._unmoved(node, now_s)

    def _bounded(self, program: str, node: str, now_s: float) -> Iterator[Violation]:
        used = self._usage(program, node)
        first = self._first.setdefault(program, used)
        for name, value in used.items():
            self.most[f"{program} {name}"] = max(value, self.most.get(f"{program} {name}", 0))
            if value > allowed(name, first[name]):
                yield Violation(now_s, f"{node}'s {program} has {value} {name}, {first[name]} at first")

    def _usage(self, program: str, node: str) -> Usage:
        try:
            process = Path(f"/proc/{self._system.lab.process(node, program).pid}")
            lines = process.joinpath("status").read_text().splitlines()
            kilobytes = next((int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)
            descriptors = sum(1 for _ in process.joinpath("fd").iterdir())
        except (OSError, LabError):  # it has ended
            return {}
        role = "agent" if program == "agent" else "mux"
        directory = self._system.lab.inside(node, lambda: pins.directory_of("eth0", role))
        return {
            "kB of memory": kilobytes, "descriptors": descriptors,
            "pins": sum(path.is_file() for path in directory.rglob("*")),
        }  # fmt: skip

    def _unmoved(self, node: str, now_s: float) -> Iterator[Violation]:
        with contextlib.suppress(ControlError):  # it has not started yet, or has just ended
            for line in self._system.client(node).ask(GetCounters()).verdicts:
                if line.verdict in STILL and line.packets > self._still.setdefault((node, line.verdict), line.packets):
                    yield Violation(now_s, f"{node} counts {line.packets} packets as {line.verdict}")


def allowed(name: str, first: int) -> int:
    """The most of something that a process may have, if it had ``first`` of it before the first event."""
    if name == "pins":
        return PINS_GENERATIONS * first
    return first + (MORE_MEMORY_KB if name == "kB of memory" else MORE_DESCRIPTORS)
