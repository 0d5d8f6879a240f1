"""The flow model against its plain twin, and what each policy breaks."""

from dataclasses import replace

import numpy as np
import pytest

from lbmux.tools.simulate.flow_delivery import Count
from lbmux.tools.simulate.flow_model import Run
from lbmux.tools.simulate.flow_policies import BASE, POLICIES
from lbmux.tools.simulate.flow_scenarios import Scenario, scenario
from tests.tools.simulate.plain_flow_model import PlainRun


def shortened(kind: str, seed: int) -> Scenario:
    """A scenario to the fifth minute after its last event, with every fourth flow: quick in plain Python."""
    whole = scenario(kind, seed)
    end = whole.events[-1].time + 320
    packets = whole.packets[(whole.packets["time"] < end) & (whole.packets["flow"] % 4 == 0)]
    return replace(whole, packets=packets)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "policies"),
    [
        (
            "planned",
            ("base", "all", "newest, no second chance", "base, settled after 10 s", "base, UDP tracked always"),
        ),
        ("syn", ("base", "base, SYN grace not to drained", "newest, 2 tables")),
        ("restart", ("base", "all, no second chance", "base, entries in all marked slots", "base, UDP new at once")),
        ("reseed", ("base, no SYN grace", "newest")),
    ],
)
def test_the_twin_counts_the_same(kind: str, policies: tuple[str, ...]) -> None:
    shorter = shortened(kind, 3)
    for name in policies:
        assert Run(POLICIES[name], shorter).run().counts.tolist() == PlainRun(POLICIES[name], shorter).run(), name


def test_the_rule_breaks_no_connection_without_second_chance() -> None:
    for seed in range(3):
        counts = Run(POLICIES["base, no second chance"], scenario("planned", seed)).run().counts
        assert counts[Count.TCP_BROKEN] == counts[Count.UDP_BROKEN] == counts[Count.SECOND_SYN] == 0


def test_the_newest_table_breaks_some() -> None:
    runs = [Run(POLICIES["newest, no second chance"], scenario("planned", seed)).run() for seed in range(3)]
    assert sum(one.counts[Count.TCP_BROKEN] for one in runs) > 20


def test_the_rule_needs_few_entries_and_steady_slots_come_back() -> None:
    samples = Run(BASE, scenario("planned", 1)).run().samples
    assert (
        0 < samples[:, 1].mean() < 0.3
        and samples[0, 2] < samples[:, 2].max()
        and samples[-1, 2] < samples[:, 2].max() / 2
    )


def test_one_seed_gives_one_scenario() -> None:
    one, same, other = scenario("all", 4), scenario("all", 4), scenario("all", 5)
    assert one.events == same.events != other.events
    assert np.array_equal(one.packets, same.packets) and len(one.packets) != len(other.packets)
