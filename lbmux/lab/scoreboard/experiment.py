"""One experiment: real connections run through a system, an event happens, and its effect on them is measured."""

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from lbmux.errors import LabError
from lbmux.lab.connections import STUCK_MS
from lbmux.lab.scoreboard.scoreboard_events import events_of
from lbmux.lab.scoreboard.system_under_test import SystemUnderTest
from lbmux.lab.traffic_client import Client
from lbmux.plurals import counted

CALM_S = 0.7


@dataclass(frozen=True)
class Load:
    """The load: long connections, new short ones per second, and how long they are watched after the event."""

    connections: int = 500
    short_per_s: float = 50.0
    pause_ms: float = 100.0
    seconds: float = 4.0


@dataclass(frozen=True)
class Outcome:
    """The event's effect on the connections.

    ``own``: broken connections whose own server was hit.  ``stall_ms``: the longest wait of the surviving ones.
    ``new``: connections opened meanwhile.  ``refused``: those of them without an answer within 3 s.
    ``normal_ms``: time from the event to the last answer that was late (over 50 ms), broken or refused.
    ``isolated_ms``: time from the beginning of a flood until its VIP was a black hole on all muxes that made it one,
    and ``back_ms`` from the flood's end until it was none; None: that did not happen.
    """

    scenario: str
    event: str
    connections: int
    broken: int
    own: int
    stall_ms: float
    new: int
    refused: int
    normal_ms: float
    reasons: dict[str, int] = field(default_factory=dict)
    isolated_ms: float | None = None
    back_ms: float | None = None


def experiment(system: SystemUnderTest, event: str, load: Load) -> Outcome:
    """Run an event, watch its effect, and undo it.  Raise LabError if the system does not recover.

    For events that make connections silent, the watch begins when the servers speak again.  After an event that took
    some seconds, TCP may wait as long again before it retransmits (RFC 6298, section 5.5): the watch includes that.
    """
    steps = events_of(event)
    with system.traffic(load.connections, load.short_per_s, load.pause_ms) as client:
        if unwell := [c for c in client.first["connections"] if not c["lines"]]:
            count = counted(len(unwell), "connection")
            raise LabError("", f"{system.scenario.name}: {count} before {event}: {unwell[0]}")
        time.sleep(CALM_S)
        before = client.report()
        lost, begun = doomed(system, event, before["connections"]), time.monotonic()
        try:
            for step in steps:
                step.happen(system)
            took = time.monotonic() - begun
            for silence in filter(None, (step.silence for step in steps)):
                assert isinstance(client, Client)  # events with silence are not for users of resolvers
                before = client.fall_silent(silence)
                begun = time.monotonic() + silence.seconds
                for step in steps:
                    step.in_silence(system)
            time.sleep(max(0.0, begun + load.seconds - time.monotonic()))
            after = client.report_once_answered(took)
            isolated_ms, back_ms = system.other_vip.isolation()
        finally:
            for step in reversed(steps):
                step.undo(system)
    system.wait_until_normal()
    outcome = judge(system.scenario.name, event, lost, begun, before, after)
    return replace(outcome, isolated_ms=isolated_ms, back_ms=back_ms)


def doomed(system: SystemUnderTest, event: str, connections: list[dict[str, Any]]) -> set[int]:
    """Return the client ports of connections that cannot survive, because their own server or the path to it is hit."""
    names = set(event.split("+"))
    hit = system.scenario.pop if "lose-pop" in names else frozenset[str]()
    if system.forwarder_is_backend or system.scenario.resolvers:
        if system.forwarder_is_backend and not {"kill-backend", "kill-mux", "cut-link", "lose-mux"}.isdisjoint(names):
            hit |= {system.backend}
        return {one["local_port"] for one in connections if one["backend"] in hit}
    return set() if {"kill-backend", "kill-host", "lose-agent"}.isdisjoint(names) else system.ports_at_backend()


def judge(
    scenario: str, event: str, lost: set[int], begun: float, before: dict[str, Any], after: dict[str, Any]
) -> Outcome:
    """Compare two reports of the traffic.

    ``lost``: client ports of connections that cannot survive.  ``begun``: the event's time on the monotonic clock.
    """
    pairs = list(zip(before["connections"], after["connections"], strict=True))
    broken: list[dict[str, Any]] = []
    going: list[dict[str, Any]] = []
    for old, new in pairs:
        stuck = new["longest_stall_ms"] > STUCK_MS and new["lines"] == old["lines"]
        (broken if new["broken"] or stuck else going).append(new)
    short, trouble = after["short"], after["trouble"]
    failed = Counter(short["failed"]) + Counter({"still waiting": short["waiting"]})
    refused = failed.total()
    return Outcome(
        scenario, event, len(pairs), len(broken), sum(one["local_port"] in lost for one in broken),
        max((one["longest_stall_ms"] for one in going), default=0.0), refused + sum(short["answered"].values()),
        refused, round(1000 * max(0.0, trouble - begun)) if trouble else 0,
        dict(Counter(one["broken"] or "stuck" for one in broken) + failed),
    )  # fmt: skip
