"""Acknowledged revisions survive random kills; `python -m bench.kills` runs for minutes."""

import pytest

from bench import kills
from tests.lab.measured import needs

SECONDS = 6


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", pytest.param("etcd", marks=needs("etcd"))])
def test_what_was_acknowledged_is_there(store: str) -> None:
    outcome = kills.run(store, SECONDS, report=lambda line: None)
    assert outcome.acknowledged and sum(outcome.kills.values()) >= 2 and not outcome.lost


def test_what_is_lost_is_found() -> None:
    outcome = kills.Outcome({1: "change 1", 2: "change 2"}, kills={"manager0": 3}, lost={2: "change 2"})
    assert str(outcome).startswith("2 revisions acknowledged, 1 of them lost; ")
