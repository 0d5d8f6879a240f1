"""The solver of `lbmux steer`: its time, and its cost against the bound of the linear program (HiGHS)."""

import time
from dataclasses import dataclass

import numpy as np

from bench.report import Result, median
from lbmux.steering.assignment import Floats, assign

GROUPS, POPS = 10_000, 50


@dataclass(frozen=True)
class Region:
    """Client groups around towns and PoPs on a plane: ``cost`` is users times round-trip time, (PoPs, groups)."""

    cost: Floats
    users: Floats
    capacity: Floats


def random_region(groups: int, pops: int, seed: int, capacity_ratio: float) -> Region:
    """Make a region from a seed, in which no group has over 1 % of the users.

    ``capacity_ratio``: the sum of capacities, as a multiple of the users.
    """
    random = np.random.default_rng(seed)
    sites, towns = random.uniform(0, 100, (pops, 2)), random.uniform(0, 100, (max(4, pops), 2))
    clients = towns[random.integers(0, len(towns), groups)] + random.normal(0, 8, (groups, 2))
    distance = np.linalg.norm(sites[:, None] - clients[None], axis=2)
    rtt_ms = 4 + 1.5 * distance * random.uniform(0.8, 1.4, (pops, groups))
    users = random.lognormal(3, 1.4, groups)
    users = np.minimum(users, users.sum() / 100)
    capacity = random.uniform(0.5, 1.5, pops)
    return Region(rtt_ms * users, users, capacity * users.sum() * capacity_ratio / capacity.sum())


def lp_bound(region: Region) -> float:
    """Return the least cost if groups were divisible."""
    import highspy

    pops, groups = region.cost.shape
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = pops * groups, groups + pops
    program.col_cost_ = region.cost.T.ravel()
    program.col_lower_, program.col_upper_ = np.zeros(pops * groups), np.ones(pops * groups)
    program.row_lower_ = np.concatenate([np.ones(groups), np.full(pops, -highspy.kHighsInf)])
    program.row_upper_ = np.concatenate([np.ones(groups), region.capacity])
    rows, values = np.empty((groups, pops, 2), np.int32), np.ones((groups, pops, 2))
    rows[..., 0], rows[..., 1] = np.arange(groups)[:, None], groups + np.arange(pops)
    values[..., 1] = region.users[:, None]
    program.a_matrix_.start_ = np.arange(0, 2 * pops * groups + 1, 2)
    program.a_matrix_.index_, program.a_matrix_.value_ = rows.ravel(), values.ravel()
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.passModel(program)
    solver.run()
    return float(solver.getInfo().objective_function_value)


def run() -> list[Result]:
    results = []
    for capacity_ratio in (1.25, 1.05):
        region = random_region(GROUPS, POPS, 1, capacity_ratio)

        def once(region: Region = region) -> float:
            start = time.perf_counter()
            assign(region.cost, region.users, region.capacity)
            return time.perf_counter() - start

        name = f"{GROUPS} groups, {POPS} PoPs, {capacity_ratio - 1:.0%} spare capacity"
        results.append(Result("steering", name, median(once), "s", goal="< 2"))
        cost = assign(region.cost, region.users, region.capacity).cost
        above = 100 * (cost / lp_bound(region) - 1)
        results.append(Result("steering", f"{name}: cost above the bound", above, "%", goal="< 2"))
    return results
