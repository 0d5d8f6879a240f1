"""The search for the shortest list of events that still fails (delta debugging, Zeller and Hildebrandt 2002).

A list fails if at least three of five reruns violate something.
"""

from collections.abc import Callable, Sequence

from lbmux.lab.chaos.schedule import Step

RERUNS, FAILURES = 5, 3
Run = Callable[[Sequence[Step]], bool]
"""Carries out steps, and returns whether something was violated."""
More = Callable[[], bool]
"""Whether there is time for another rerun."""


def shortest(steps: Sequence[Step], run: Run, more: More) -> tuple[list[Step], bool]:
    """Return the shortest list that was found, and whether it failed in reruns at all."""
    if not fails(steps, run, more):
        return list(steps), False
    found, parts, passed = list(steps), 2, set[tuple[Step, ...]]()
    while len(found) > 1 and more():
        size = -(-len(found) // parts)
        pieces = [found[at : at + size] for at in range(0, len(found), size)]
        # The last events are the likeliest, so their piece comes first.
        rests = [[step for step in found if step not in piece] for piece in pieces]
        kept = next((one for one in [*reversed(pieces), *rests] if _fails_first(one, passed, run, more)), None)
        if kept is not None:
            found, parts = kept, 2 if kept in pieces else max(parts - 1, 2)
        elif parts >= len(found):
            break
        else:
            parts = min(2 * parts, len(found))
    return found, True


def _fails_first(steps: Sequence[Step], passed: set[tuple[Step, ...]], run: Run, more: More) -> bool:
    """Whether steps fail that have not ``passed`` before."""
    if tuple(steps) in passed:
        return False
    found = fails(steps, run, more)
    if not found:
        passed.add(tuple(steps))
    return found


def fails(steps: Sequence[Step], run: Run, more: More) -> bool:
    """Whether enough reruns fail; no more of them are made than it takes to know."""
    failed = 0
    for done in range(RERUNS):
        if not steps or not more() or failed >= FAILURES or failed + RERUNS - done < FAILURES:
            break
        failed += run(steps)
    return failed >= FAILURES
