"""`lbmux simulate flows` in small."""

import pytest

from lbmux.tools.simulate.flow_experiment import FlowComparison, compare_flows


@pytest.mark.slow
def test_rows_and_panels_have_every_scenario_and_policy() -> None:
    progress: list[float] = []
    settings = FlowComparison(("planned", "mux"), ("base", "all"), repeats=2)
    result = compare_flows(settings, progress.append)
    assert [(row["scenario"], row["policy"]) for row in result.rows] == [
        ("planned", "base"), ("planned", "all"), ("mux", "base"), ("mux", "all")
    ]  # fmt: skip
    base, every = result.rows[:2]
    assert base["flows"] == every["flows"] and base["tcp_broken"] == base["udp_broken"] == 0
    assert base["entries_percent_of_flows"].high < 40 < every["entries_percent_of_flows"].low  # type: ignore[union-attr]
    assert [len(panel.lines) for panel in result.panels] == [2, 2] and result.panels[0].lines[0].x == ["planned", "mux"]
    assert progress == [at / 8 for at in range(1, 9)]
