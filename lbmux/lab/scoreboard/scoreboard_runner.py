"""Every experiment of some scenarios, one after the other: a scenario's lab is built once, and put right in between.

One that fails is a line with the reason, and the next begins with a lab that is whole.  All are bounded in time.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from lbmux.errors import LabError
from lbmux.lab.lab import Lab
from lbmux.lab.scoreboard.deadline import deadline
from lbmux.lab.scoreboard.experiment import Load, Outcome, experiment
from lbmux.lab.scoreboard.scenarios import SCENARIOS, Scenario
from lbmux.lab.scoreboard.system_under_test import SystemUnderTest

BUILD_S, PUT_RIGHT_S = 300.0, 60.0
"""How long a lab may take to be there, compiling what it runs; and an experiment, beyond what it watches."""
Failure = tuple[str, str, str]
"""(scenario, event, why it could not be measured)"""


@dataclass(frozen=True)
class Setting:
    """``name``: that labs' names begin with; ``second_chance``: the setting; ``most_s``: when no other one is begun."""

    name: str
    driver: str = "auto"
    second_chance: bool = True
    most_s: float = 900.0


def run(
    scenarios: Sequence[str], events: Sequence[str], load: Load, setting: Setting, say: Callable[[str], None]
) -> Iterator[Outcome | Failure]:
    """``events``: of each scenario those that it knows; all where none is named."""
    until = time.monotonic() + setting.most_s
    for scenario in (SCENARIOS[one] for one in scenarios):
        wanted = [event for event in (events or scenario.events) if knows(scenario, event)]
        if wanted:
            topology = scenario.topology()
            slow_path = topology.config.get("slowpath", {}) | {"second_chance": setting.second_chance}
            topology = replace(topology, config=topology.config | {"slowpath": slow_path})
            lab = Lab(topology, f"{setting.name}-{scenario.name}", setting.driver)
            yield from _of_scenario(scenario, wanted, load, lab, until, say)


def knows(scenario: Scenario, event: str) -> bool:
    """Pairs are known by their parts."""
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
                    raise LabError("", "not begun: the time for all of them is over")
                with deadline(BUILD_S):
                    system = system or _built(scenario, lab)
                with deadline(PUT_RIGHT_S + load.seconds):
                    found: Outcome | Failure = experiment(system, event, load)
            except Exception as error:
                found, system = (scenario.name, event, str(error) or repr(error)), None
            yield found
    finally:
        with contextlib.suppress(LabError):
            lab.down()


def _built(scenario: Scenario, lab: Lab) -> SystemUnderTest:
    lab.down()
    lab.up(programs=False)
    system = SystemUnderTest(scenario, lab)
    system.start()
    return system
