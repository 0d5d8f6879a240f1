"""JET's trace in small: the compiled run against its plain twin, and what each rule breaks."""

import pytest

from lbmux.tools.simulate.jet_run import JetOutcome, JetRule, JetRun
from lbmux.tools.simulate.jet_trace import JetTrace
from tests.tools.simulate.plain_jet_run import PlainJetRun

SMALL = JetTrace(20, 5, 3000, 400.0, 3.0, gap_s=5.0, seed=4)
LARGER = JetTrace(40, 8, 60_000, 600.0, 6.0, gap_s=5.0, seed=2)


def outcome(trace: JetTrace, rule: JetRule, size: int = 4099) -> JetOutcome:
    run = JetRun(trace, rule, size)
    assert list(run.run())[-1] == trace.seconds
    return run.outcome()


@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [
        JetRule("full", "full", "rendezvous", 40),
        JetRule("jet", "jet", "rendezvous", 20),
        JetRule("lbmux", "lbmux", "maglev", 1000),
        JetRule("lbmux, few entries", "lbmux", "rendezvous", 10),
    ],
    ids=lambda rule: rule.name,
)
def test_the_twin_counts_the_same(rule: JetRule) -> None:
    plain, compiled = PlainJetRun(SMALL, rule, 251), outcome(SMALL, rule, 251)
    plain.run()
    assert (compiled.broken, compiled.lost, compiled.packets) == (plain.broken, plain.lost, plain.packets)
    assert compiled.samples[:, 1:3].tolist() == [list(map(float, one)) for one in plain.samples]


def test_full_tracking_breaks_connections_where_jet_and_lbmux_break_none() -> None:
    full = outcome(LARGER, JetRule("", "full", "rendezvous", 500))
    jet = outcome(LARGER, JetRule("", "jet", "rendezvous", 900))
    lbmux = outcome(LARGER, JetRule("", "lbmux", "maglev", 10_000))
    assert full.broken > 50 and jet.broken == lbmux.broken == 0
    assert full.samples[:, 2].max() == 500 and jet.samples[:, 2].max() < 900


def test_full_tracking_with_entries_for_all_breaks_none() -> None:
    assert outcome(LARGER, JetRule("", "full", "rendezvous", 100_000)).broken == 0


def test_slots_are_steady_until_a_server_changes() -> None:
    samples = outcome(JetTrace(20, 5, 5000, 60.0, 0.0), JetRule("", "lbmux", "maglev", 100)).samples
    assert (samples[:, 2:] == 0).all() and samples[-1, 1] > 0


def test_the_same_connections_come_under_every_rule() -> None:
    none = JetTrace(20, 5, 5000, 60.0, 0.0)
    every = [outcome(none, JetRule("", rule, "rendezvous", 100)) for rule in ("full", "jet", "lbmux")]  # type: ignore[arg-type]
    assert len({one.packets for one in every}) == 1 and {one.broken + one.lost for one in every} == {0}
