"""The history of a mux, as its control socket answers."""

import asyncio
import logging
import time

import pytest

from lbmux.api.answers import History
from lbmux.api.requests import GetHistory
from lbmux.daemons.traffic_sampler import TrafficSampler, traffic_totals
from lbmux.datapath.verdicts import Verdict
from lbmux.metrics.traffic_history import TrafficHistory
from tests.linux.inside import Inside, agent_with_a_flow, client

WAIT_S = 20.0


def test_totals_are_those_of_all_services() -> None:
    mux = Inside()
    mux.send(client(1), client(2), client(2), client(3, destination_port=81))
    totals = traffic_totals(mux.snapshot, in_kernel=False)
    assert (totals.packets, totals.new_flows, totals.drops) == (3, 2, {})
    mux.tables.verdicts["packets"][:, Verdict.NO_BACKEND] += 2
    assert traffic_totals(mux.snapshot, in_kernel=False).drops == {"no_backend": 2 * len(mux.tables.verdicts)}


def test_an_agent_does_not_count_new_flows() -> None:
    snapshot, history = agent_with_a_flow(), TrafficHistory()
    snapshot.tables.verdicts["packets"][0, Verdict.DELIVERED] += 3
    history.sample(1, traffic_totals(snapshot, in_kernel=False))
    snapshot.tables.verdicts["packets"][0, Verdict.DELIVERED] += 5
    snapshot.tables.verdicts["packets"][0, Verdict.NOT_A_MUX] += 2
    history.sample(2, traffic_totals(snapshot, in_kernel=False))
    (point,) = history.since(0)
    assert (point.packets, point.new_flows, point.drops) == (5, None, {"not_a_mux": 2})


@pytest.mark.slow
def test_history_has_the_seconds_and_the_log() -> None:
    mux = Inside()
    sampler = TrafficSampler("edge", lambda: mux.snapshot, lambda: False)

    async def ask(since: float) -> History:
        answer: History = await sampler.handlers()[GetHistory](GetHistory(since))
        return answer

    async def watch() -> tuple[History, History]:
        async with sampler.running(), asyncio.timeout(WAIT_S):
            logging.getLogger("lbmux.tests").warning("a backend died")
            while not (await ask(0)).points:
                await asyncio.sleep(0.05)
            mux.send(*(client(port) for port in range(50)))
            while sum(one.packets for one in (await ask(0)).points) < 50:
                await asyncio.sleep(0.05)
            return await ask(0), await ask(time.time() + 60)

    whole, later = asyncio.run(watch())
    assert sum(one.packets for one in whole.points) == 50
    assert sum(one.new_flows for one in whole.points) == 50
    assert sum(one.bytes for one in whole.points) > 50 * 40
    assert [(one.level, one.text) for one in whole.events] == [("warning", "a backend died")]
    assert (later.points, later.events, later.program) == ([], [], "edge")
