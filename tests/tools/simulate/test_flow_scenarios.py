"""Scenarios have the packets and events that they promise."""

import numpy as np
import pytest

from lbmux.tools.simulate.flow_scenarios import BURST_FLOWS, END_S, KINDS, WARM_S, events_of, scenario
from lbmux.tools.simulate.slot_rule import FIN, SYN, TCP


@pytest.mark.parametrize("kind", KINDS)
def test_packets_are_in_order_and_connections_begin_with_a_syn(kind: str) -> None:
    generated = scenario(kind, 1)
    times, flows = generated.packets["time"], generated.packets["flow"]
    assert (np.diff(times) >= 0).all() and times[-1] < END_S and flows.max() < len(generated.flows)
    _, first = np.unique(flows, return_index=True)
    is_tcp = generated.flows["kind"][flows[first]] == TCP
    assert (generated.packets["what"][first[is_tcp]] == SYN).all() and (generated.packets["what"] == FIN).any()


def test_events_are_what_the_scenario_says() -> None:
    kinds = {kind: {event.what for seed in range(20) for event in events_of(kind, seed)} for kind in KINDS}
    assert kinds["planned"] == {"add", "drain", "reweight"}
    assert kinds["all"] == kinds["syn"] == kinds["planned"] | {"die", "remove"}
    assert kinds["mux"] == kinds["all"] | {"lose"} and kinds["restart"] == kinds["mux"] | {"start"}
    assert kinds["reseed"] == kinds["all"] | {"reseed"}


def test_events_begin_when_flows_are_under_way() -> None:
    times = [event.time for event in events_of("mux", 2)]
    assert times == sorted(times) and times[0] == WARM_S


def test_before_each_change_connections_begin_with_two_syns() -> None:
    generated = scenario("syn", 1)
    burst = generated.packets[generated.packets["flow"] >= len(generated.flows) - BURST_FLOWS]
    syns = burst[burst["what"] == SYN]
    assert len(syns) == 2 * BURST_FLOWS and (syns["time"] > generated.events[-1].time - 1).all()
    assert 0.3 < syns["late"][BURST_FLOWS:].mean() < 0.7
