"""`lbmux lab chaos`: a lab, a schedule, its run, and the search for the shortest list of events after a failure."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lbmux.errors import LabError
from lbmux.lab.chaos.chaos_run import ChaosRun, Result, Say
from lbmux.lab.chaos.chaos_system import chaos_scenario
from lbmux.lab.chaos.schedule import Step, schedule, shortened
from lbmux.lab.chaos.shortest import shortest
from lbmux.lab.lab import Lab
from lbmux.lab.scoreboard.experiment import Load
from lbmux.lab.scoreboard.system_under_test import SystemUnderTest


@dataclass(frozen=True)
class Chaos:
    """``name``: the lab's name.  ``search_s``: the most time that the search after a failure may take."""

    scenario: str
    name: str
    driver: str
    seed: int
    seconds: float
    load: Load
    search_s: float = 900.0


@dataclass
class Outcome:
    """``shortest``: the shortest list of events that failed again; None if nothing failed, or not again."""

    steps: list[Step]
    result: Result = field(default_factory=Result)
    shortest: list[Step] | None = None


def planned(chaos: Chaos) -> list[Step]:
    scenario = chaos_scenario(chaos.scenario)
    backends = [host for host in scenario.backends if host in _initial(chaos.scenario)]
    return schedule(chaos.seed, chaos.seconds, scenario.forwarders, backends)


def run(chaos: Chaos, say: Say) -> Outcome:
    """Run the schedule; if something is violated, search for the shortest list that fails.  The lab is removed."""
    outcome = Outcome(planned(chaos))
    with _system(chaos) as system:
        outcome.result = ChaosRun(system, chaos.load, say).run(outcome.steps)
    if outcome.result.violations and chaos.search_s:
        outcome.shortest = _search(chaos, outcome, say)
    return outcome


def _search(chaos: Chaos, outcome: Outcome, say: Say) -> list[Step] | None:
    end = time.monotonic() + chaos.search_s
    begun = outcome.steps[: outcome.result.steps]

    def rerun(steps: Sequence[Step]) -> bool:
        say(f"again with {', '.join(step.event for step in steps)}")
        with _system(chaos) as system:
            return bool(ChaosRun(system, chaos.load, lambda text: None).run(shortened(steps)).violations)

    found, again = shortest(begun, rerun, lambda: time.monotonic() < end)
    return shortened(found) if again else None


def _initial(name: str) -> set[str]:
    """The backends that a system's first service starts with."""
    return {backend["name"] for backend in chaos_scenario(name).topology().config["services"][0]["backends"]}


@contextlib.contextmanager
def _system(chaos: Chaos) -> Iterator[SystemUnderTest]:
    """A system that is up and normal within the context."""
    scenario = chaos_scenario(chaos.scenario)
    lab = Lab(scenario.topology(), chaos.name, chaos.driver)
    lab.down()
    try:
        lab.up(programs=False)
        system = SystemUnderTest(scenario, lab)
        system.start()
        yield system
    finally:
        with contextlib.suppress(LabError):
            lab.down()
