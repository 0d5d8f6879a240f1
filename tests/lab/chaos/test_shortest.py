"""The search for the shortest list that fails, with reruns that are made up."""

import itertools
from collections.abc import Sequence

from lbmux.lab.chaos.schedule import Step
from lbmux.lab.chaos.shortest import FAILURES, RERUNS, fails, shortest

STEPS = [Step(float(n), n + 0.5, "reload", f"mux{n}", "h1") for n in range(12)]


def always() -> bool:
    return True


def culprits(*numbers: int) -> tuple[set[Step], list[Sequence[Step]]]:
    return {STEPS[number] for number in numbers}, []


def test_a_pair_of_events_is_found_among_twelve() -> None:
    wanted, runs = culprits(3, 9)

    def run(steps: Sequence[Step]) -> bool:
        runs.append(steps)
        return wanted <= set(steps)

    assert shortest(STEPS, run, always) == ([STEPS[3], STEPS[9]], True)
    assert len(runs) < 120


def test_the_last_event_alone_is_found_quickly() -> None:
    runs: list[int] = []

    def run(steps: Sequence[Step]) -> bool:
        runs.append(len(steps))
        return STEPS[-1] in steps

    assert shortest(STEPS, run, always) == ([STEPS[-1]], True)
    assert len(runs) <= FAILURES * 5


def test_what_does_not_fail_again_is_not_searched() -> None:
    assert shortest(STEPS, lambda steps: False, always) == (STEPS, False)


def test_the_time_limit_ends_the_search_with_what_it_has() -> None:
    left = itertools.chain([True] * 8, itertools.repeat(False))
    found, again = shortest(STEPS, lambda steps: STEPS[0] in steps, lambda: next(left))
    assert again and STEPS[0] in found and len(found) > 1


def test_three_failures_of_five_reruns_are_enough_and_two_are_not() -> None:
    for outcomes, wanted in (([1, 0, 1, 0, 1], True), ([1, 0, 1, 0, 0], False), ([0, 1, 1, 1, 0], True)):
        made = iter(outcomes)
        assert fails(STEPS, lambda steps, made=made: bool(next(made)), always) is wanted  # type: ignore[misc]
    assert RERUNS == 5


def test_reruns_end_once_the_answer_is_known() -> None:
    runs: list[int] = []
    assert not fails(STEPS, lambda steps: runs.append(1) is not None, always)
    assert len(runs) == RERUNS - FAILURES + 1
