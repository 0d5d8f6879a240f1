"""Every experiment of some scenarios, one after the other: a scenario's lab is built once, and put right in between."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from lbmux.errors import ControlError, LabError
from lbmux.lab.board.experiment import Load, Outcome, experiment
from lbmux.lab.board.scenarios import SCENARIOS, Scenario
from lbmux.lab.board.stage import Stage
from lbmux.lab.lab import Lab

Failure = tuple[str, str, str]
"""(scenario, event, why it could not be measured)"""


def run(
    scenarios: Sequence[str], events: Sequence[str], load: Load, name: str, driver: str, hosts_help: bool,
    say: Callable[[str], None],
) -> Iterator[Outcome | Failure]:  # fmt: skip
    """``events``: of each scenario those that it knows; all where none is named.  ``hosts_help``: the setting."""
    for scenario in (SCENARIOS[one] for one in scenarios):
        wanted = [event for event in (events or scenario.events) if knows(scenario, event)]
        if wanted:
            topology = scenario.topology()
            topology = replace(topology, config=topology.config | {"slowpath": {"hosts_help": hosts_help}})
            lab = Lab(topology, f"{name}-{scenario.name}", driver)
            yield from _of_scenario(scenario, wanted, load, lab, say)


def knows(scenario: Scenario, event: str) -> bool:
    """Pairs are known by their parts."""
    return set(event.split("+")) <= {part for known in scenario.events for part in known.split("+")}


def _of_scenario(
    scenario: Scenario, events: Sequence[str], load: Load, lab: Lab, say: Callable[[str], None]
) -> Iterator[Outcome | Failure]:
    try:
        stage: Stage | None = None
        for event in events:
            say(f"{scenario.name}: {event}")
            try:
                stage = stage or _built(scenario, lab)
                yield experiment(stage, event, load)
            except (LabError, ControlError) as error:
                yield scenario.name, event, str(error)
                stage = None  # the next one gets a lab that is whole
    finally:
        with contextlib.suppress(LabError):
            lab.down()


def _built(scenario: Scenario, lab: Lab) -> Stage:
    lab.down()
    lab.up(programs=False)
    stage = Stage(scenario, lab)
    stage.start()
    return stage
