"""The solver: assigns client groups to PoPs at the least total cost, within the PoPs' capacities. Pure.

The problem is a generalised assignment. Its linear relaxation is solved from the dual side: each full PoP has a price
for a unit of load, and each group takes the PoP where cost and price together are least. A price is set so that the
groups that still want the PoP just fit; raising prices PoP by PoP is an auction (Bertsekas, "Auction algorithms for
network flow problems", 1992). Groups are not divisible, so moves and swaps of single groups then repair and improve
what the prices leave. The prices also give a lower bound of the cost, so the result says how good it is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indexes = NDArray[np.intp]

SAMPLE = 2000
"""Size of the sample of groups that gives the first prices; the cost of a sweep grows with the number of groups."""
FIRST, LAST = (60, 1.5), (20, 1.2)
"""Maximum number of sweeps over the PoPs, and step of a price: for the sample, and for all groups.

A step above 1 changes a price by more than its PoP needs now, because prices of other PoPs will follow.
"""
SETTLED = 0.003
"""Prices are settled when none changes by more than this share of the highest; the local search does the rest."""
MOST_ROUNDS = 4
MOST_SWAPS, MOST_WISHES = 400, 3
"""Number of groups, those that gain most, that try to swap in a round, and number of PoPs that each tries."""
SLACK = 1e-9


@dataclass(frozen=True)
class Assignment:
    """``pops``: the PoP of each group; ``cost``: the total cost; ``bound``: no assignment costs less. ``prices``: the
    price of a unit of load at each PoP; above 0 only if more groups want a PoP than fit.
    """

    pops: Indexes
    cost: float
    bound: float
    prices: Floats

    @property
    def gap(self) -> float:
        """The distance of the cost from the bound, as a share of the bound."""
        return (self.cost - self.bound) / self.bound if self.bound else 0.0


def assign(cost: Floats, load: Floats, capacity: Floats) -> Assignment:
    """Assign each group to one PoP.

    ``cost``: of each group at each PoP, shape (PoPs, groups). ``load``: that each group puts on its PoP, above 0.
    ``capacity``: of each PoP. If the capacities together are too small, each PoP is overloaded in the same proportion.
    """
    capacity = capacity * max(1.0, load.sum() / capacity.sum() * (1 + SLACK))
    prices = _prices(cost, load, capacity)
    priced = cost + np.outer(prices, load)
    pops = priced.argmin(axis=0)
    bound = float(priced.min(axis=0).sum() - prices @ capacity)
    search = _Search(priced, load, capacity, pops)
    search.relieve_overload()
    search.cost = cost
    for _ in range(MOST_ROUNDS):
        if not search.move_groups() and not search.swap_groups():
            break
    total = float(cost[search.pops, np.arange(cost.shape[1])].sum())
    return Assignment(search.pops, total, bound, prices)


def _prices(cost: Floats, load: Floats, capacity: Floats) -> Floats:
    """Return the price of a unit of load at each PoP at which the groups' own choices nearly fit.

    A sample of the groups, with its share of the capacities, gives the prices to start from.
    """
    if (every := len(load) // SAMPLE) > 1:
        sample, share = np.ascontiguousarray(cost[:, ::every]), load[::every].sum() / load.sum()
        prices = _prices(sample, load[::every], capacity * share)
        return _settle(prices, cost, load, capacity, LAST)
    return _settle(np.zeros(len(capacity)), cost, load, capacity, FIRST)


def _settle(prices: Floats, cost: Floats, load: Floats, capacity: Floats, steps: tuple[int, float]) -> Floats:
    """Set the price of one full PoP after another, until they settle."""
    most_sweeps, overshoot = steps
    priced = cost + np.outer(prices, load)
    for _ in range(most_sweeps):
        before = prices.copy()
        wanted = np.bincount(priced.argmin(axis=0), load, len(capacity))
        for pop in np.flatnonzero((prices > 0) | (wanted > capacity)):
            priced[pop] = np.inf
            worth = (priced.min(axis=0) - cost[pop]) / load
            clearing = _clearing_price(worth, load, capacity[pop])
            prices[pop] = max(0.0, prices[pop] + overshoot * (clearing - prices[pop]))
            priced[pop] = cost[pop] + load * prices[pop]
        if np.abs(prices - before).max() <= SETTLED * prices.max():
            break
    return prices


def _clearing_price(worth: Floats, load: Floats, capacity: float) -> float:
    """Return the lowest price at which the groups that still want the PoP fit."""
    wanting = np.flatnonzero(worth > 0)
    order = wanting[np.argsort(-worth[wanting])]
    fit = int(np.searchsorted(np.cumsum(load[order]), capacity, "right"))
    return 0.0 if fit == len(order) else float(worth[order[fit]])


class _Search:
    """Local search over single groups; each step lowers the overload, or the cost without a new overload."""

    def __init__(self, cost: Floats, load: Floats, capacity: Floats, pops: Indexes) -> None:
        self.cost, self.load, self.pops = cost, load, pops.copy()
        self.spare = capacity - np.bincount(pops, load, len(capacity))
        self._groups = np.arange(cost.shape[1])

    def _extra(self) -> Floats:
        """Return the additional cost of each group at each PoP, compared with its present one."""
        extra: Floats = self.cost - self.cost[self.pops, self._groups]
        return extra

    def _move(self, group: int, pop: int) -> None:
        self.spare[self.pops[group]] += self.load[group]
        self.spare[pop] -= self.load[group]
        self.pops[group] = pop

    def relieve_overload(self) -> None:
        """Move groups from overloaded PoPs, at the lowest cost per unit of load, while that lowers the overload."""
        while (over := -self.spare.min()) > SLACK:
            pop = int(self.spare.argmin())
            mine = np.flatnonzero(self.pops == pop)
            load = self.load[mine]
            left_over = np.maximum(0.0, load - np.maximum(self.spare, 0.0)[:, None])
            relief = np.minimum(load, over) - left_over
            usable = relief > SLACK
            if (fits := usable & (left_over == 0)).any():
                usable = fits
            each = np.full(usable.shape, np.inf)
            np.divide(self.cost[:, mine] - self.cost[pop, mine], relief, out=each, where=usable)
            at = int(each.argmin())
            if not np.isfinite(each.flat[at]):
                return
            self._move(int(mine[at % len(mine)]), at // len(mine))

    def move_groups(self) -> bool:
        """Move groups to PoPs where they cost less and fit; return whether any moved."""
        extra = self._extra()
        better = np.flatnonzero((extra < -SLACK) & (self.load <= self.spare[:, None]))
        moved = set[int]()
        for at in better[np.argsort(extra.flat[better])]:
            pop, group = divmod(int(at), len(self.load))
            if group not in moved and self.load[group] <= self.spare[pop]:
                self._move(group, pop)
                moved.add(group)
        return bool(moved)

    def swap_groups(self) -> bool:
        """Swap groups of two PoPs where that costs less and fits; return whether any did."""
        extra, swapped = self._extra(), False
        wishes = extra.min(axis=0)
        for group in np.argsort(wishes)[: min(MOST_SWAPS, np.count_nonzero(wishes < -SLACK))]:
            here = self.pops[group]
            for pop in np.argsort(extra[:, group])[:MOST_WISHES]:
                if extra[pop, group] >= -SLACK or self._swap(int(group), int(here), int(pop)):
                    break
            swapped = swapped or self.pops[group] != here
        return swapped

    def _swap(self, group: int, here: int, there: int) -> bool:
        """Move ``group`` from ``here`` to ``there``, and the group for which the way back is cheapest, if it pays."""
        gain = self.cost[here, group] - self.cost[there, group]
        others = np.flatnonzero(self.pops == there)
        more = self.load[group] - self.load[others]
        price = self.cost[here, others] - self.cost[there, others]
        fits = (more <= self.spare[there]) & (-more <= self.spare[here])
        if not len(others) or not fits.any():
            return False
        at = int(np.where(fits, price, np.inf).argmin())
        if price[at] >= gain - SLACK:
            return False
        self._move(group, there)
        self._move(int(others[at]), here)
        return True
