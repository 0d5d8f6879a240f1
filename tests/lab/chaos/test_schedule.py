"""The schedule: the same for a seed, nested, never two events that take the same."""

import itertools

import pytest

from lbmux.lab.chaos.schedule import EVENTS, GAP_S, MOST_AT_ONCE, Step, changes, schedule, shortened
from lbmux.lab.scoreboard.scoreboard_events import EVENTS as KNOWN

MUXES, BACKENDS = ("mux1", "mux2"), ("h1", "h2")


def made(seed: int, seconds: float = 300.0) -> list[Step]:
    return schedule(seed, seconds, MUXES, BACKENDS)


def test_it_follows_from_the_seed() -> None:
    assert made(7) == made(7) != made(8)


@pytest.mark.parametrize("seed", range(20))
def test_the_event_that_began_last_is_undone_first_and_none_takes_what_another_has(seed: int) -> None:
    in_force: list[Step] = []
    for change in changes(made(seed)):
        if change.happens:
            taken = [EVENTS[step.event] for step in in_force]
            assert EVENTS[change.step.event] not in taken and len(in_force) < MOST_AT_ONCE
            in_force.append(change.step)
        else:
            assert in_force.pop() == change.step
    assert in_force == []


def test_all_events_occur_and_end_in_time() -> None:
    steps = made(3, 1800.0)
    assert {step.event for step in steps} == EVENTS.keys() <= KNOWN.keys()
    assert all(0 < step.at_s < step.until_s <= 1800 for step in steps)
    assert {(step.mux, step.backend) for step in steps} == {(mux, one) for mux in MUXES for one in BACKENDS}


def test_a_shortened_schedule_has_the_same_steps_with_short_gaps() -> None:
    steps = made(5)[::3]
    short = shortened(steps)
    assert [step.event for step in short] == [step.event for step in steps]
    order = [(change.happens, change.step.event) for change in changes(steps)]
    assert [(change.happens, change.step.event) for change in changes(short)] == order
    times = [change.at_s for change in changes(short)]
    assert max(after - before for before, after in itertools.pairwise(times)) <= GAP_S + 0.11
