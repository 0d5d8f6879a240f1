"""Run all experiments of some scenarios in turn.  Each scenario's lab is built once and restored between events.

A failed experiment is reported with its reason, and the next one gets a new lab.  All have time limits.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lbmux.errors import LabError
from lbmux.lab.lab import Lab
from lbmux.lab.scoreboard.deadline import deadline
from lbmux.lab.scoreboard.experiment import Load, Outcome, experiment
from lbmux.lab.scoreboard.scenarios import SCENARIOS, Scenario
from lbmux.lab.scoreboard.scoreboard_events import events_of
from lbmux.lab.scoreboard.system_under_test import SystemUnderTest

BUILD_S, RECOVER_S = 300.0, 60.0
"""Time limits: to build a lab, including compilation; and for an experiment, beyond its watched time."""
Failure = tuple[str, str, str]
"""(scenario, event, why it could not be measured)"""


@dataclass(frozen=True)
class Setting:
    """``name``: prefix of the labs' names.  ``second_chance`` and ``flows``: the settings; None: the default.

    ``most_s``: no experiment starts later.
    """

    name: str
    driver: str = "auto"
    second_chance: bool = True
    flows: str | None = None
    most_s: float = 900.0


def run(
    scenarios: Sequence[str], events: Sequence[str], load: Load, setting: Setting, say: Callable[[str], None]
) -> Iterator[Outcome | Failure]:
    """Yield the result of each experiment.  ``events``: limits each scenario to these; empty for all its events."""
    until = time.monotonic() + setting.most_s
    for scenario in (SCENARIOS[one] for one in scenarios):
        wanted = [event for event in (events or scenario.events) if knows(scenario, event)]
        if wanted:
            topology = scenario.topology()
            lab = Lab(
                replace(topology, config=_with(setting, topology.config)),
                f"{setting.name}-{scenario.name}",
                setting.driver,
            )
            yield from _of_scenario(scenario, wanted, load, lab, until, say)


def _with(setting: Setting, config: dict[str, Any]) -> dict[str, Any]:
    slow_path = config.get("slowpath", {}) | {"second_chance": setting.second_chance}
    tracking = {} if setting.flows is None else {"flows": setting.flows}
    services = [service | tracking for service in config["services"]]
    return config | {"slowpath": slow_path, "services": services}


def knows(scenario: Scenario, event: str) -> bool:
    """Return whether a scenario has an event.  It has a pair if it has both events of the pair."""
    return set(event.split("+")) <= {part for known in scenario.events for part in known.split("+")}


def _of_scenario(
    scenario: Scenario, events: Sequence[str], load: Load, lab: Lab, until: float, say: Callable[[str], None]
) -> Iterator[Outcome | Failure]:
    try:
        system: SystemUnderTest | None = None
        for event in events:
            say(f"{scenario.name}: {event}")
            try:
                if time.monotonic() > until:
                    raise LabError("", "not started: the time limit for all experiments has passed")
                with deadline(BUILD_S):
                    system = system or _build(scenario, lab)
                with deadline(RECOVER_S + load.seconds + sum(one.takes_s for one in events_of(event))):
                    result: Outcome | Failure = experiment(system, event, load)
            except Exception as error:
                result, system = (scenario.name, event, str(error) or repr(error)), None
            yield result
    finally:
        with contextlib.suppress(LabError):
            lab.down()


def _build(scenario: Scenario, lab: Lab) -> SystemUnderTest:
    lab.down()
    lab.up(programs=False)
    system = SystemUnderTest(scenario, lab)
    system.start()
    return system
