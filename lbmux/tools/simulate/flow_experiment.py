"""`lbmux simulate flows`: what breaks under each policy for flow entries, and how many entries it needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lbmux.plurals import counted
from lbmux.tools.simulate.flow_delivery import Count
from lbmux.tools.simulate.flow_model import Outcome, Run
from lbmux.tools.simulate.flow_policies import POLICIES
from lbmux.tools.simulate.flow_scenarios import KINDS, scenario
from lbmux.tools.simulate.simulation_result import Line, Panel, Row, SimulationResult, Spread, Tell, no_progress

USUAL = ("all", "newest", "newest, no second chance", "base", "base, no second chance")


@dataclass(frozen=True)
class FlowComparison:
    """``scenarios``: of KINDS.  ``policies``: of POLICIES.  Each repeat has its own events and packets."""

    scenarios: Sequence[str] = tuple(KINDS)
    policies: Sequence[str] = USUAL
    repeats: int = 8
    seed: int = 1


def compare_flows(settings: FlowComparison, tell: Tell = no_progress) -> SimulationResult:
    """Run every policy through every repeat of every scenario; raise InvariantError if the rule does not hold."""
    rows: list[Row] = []
    outcomes: dict[tuple[str, str], list[Outcome]] = {}
    done, steps = 0, len(settings.scenarios) * settings.repeats * len(settings.policies)
    for kind in settings.scenarios:
        flows = 0
        for repeat in range(settings.repeats):
            events = scenario(kind, settings.seed * 1000 + repeat)
            flows += len(events.flows)
            for name in settings.policies:
                outcomes.setdefault((kind, name), []).append(Run(POLICIES[name], events).run())
                done += 1
                tell(done / steps)
        rows += [_row(kind, name, flows, outcomes[kind, name]) for name in settings.policies]
    title = f"Flow entries by policy: counts over {settings.repeats} sequences of events a scenario"
    return SimulationResult("flows", title, _parameters(settings), rows, _panels(settings, outcomes))


def _parameters(settings: FlowComparison) -> dict[str, object]:
    return vars(settings) | {"scenarios": [*settings.scenarios], "policies": [*settings.policies]}


def _row(kind: str, name: str, flows: int, outcomes: Sequence[Outcome]) -> Row:
    """Sums over repeats; flows that were silent for longer than the idle time have a column of their own."""
    counts = np.sum([one.counts for one in outcomes], axis=0).tolist()
    return {
        "scenario": kind,
        "policy": name,
        "flows": flows,
        "tcp_broken": counts[Count.TCP_BROKEN],
        "second_syn_broken": counts[Count.SECOND_SYN],
        "udp_broken": counts[Count.UDP_BROKEN],
        "broken_after_idle": counts[Count.TCP_BROKEN_SLEPT] + counts[Count.UDP_BROKEN_SLEPT],
        "second_chances": counts[Count.SECOND_CHANCES] + counts[Count.SECOND_CHANCES_SLEPT],
        "hops": counts[Count.HOPS],
        "new_to_drained": counts[Count.UDP_TO_DRAINED] + counts[Count.SYN_TO_DRAINED],
        "entries_percent_of_flows": _entries(outcomes),
        "marked_slots_percent": Spread.of([100 * float(one.samples[:, 2].mean()) for one in outcomes]),
    }


def _entries(outcomes: Sequence[Outcome]) -> Spread:
    return Spread.of([100 * float(one.samples[:, 1].mean()) for one in outcomes])


def _misdelivered(outcomes: Sequence[Outcome]) -> Spread:
    """Packets of TCP connections that reached a host without the connection."""
    kinds = [Count.TCP_BROKEN, Count.TCP_BROKEN_SLEPT, Count.SECOND_CHANCES, Count.SECOND_CHANCES_SLEPT]
    return Spread.of([int(one.counts[kinds].sum()) for one in outcomes])


def _panels(settings: FlowComparison, outcomes: dict[tuple[str, str], list[Outcome]]) -> list[Panel]:
    per = f"{counted(settings.repeats, 'repeat')}"
    panels = []
    for title, y, value in (
        (f"TCP at a host without the connection, {per}", "packets a repeat, before second chance", _misdelivered),
        (f"Entries, {per}", "entries by live flow (%)", _entries),
    ):
        lines = [
            Line.of(name, [(kind, value(outcomes[kind, name])) for kind in settings.scenarios])
            for name in settings.policies
        ]
        panels.append(Panel(title, "scenario", y, lines, "bars"))
    return panels
