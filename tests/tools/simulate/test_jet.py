"""`lbmux simulate jet` in small."""

from dataclasses import replace

import pytest

from lbmux.tools.simulate.jet import Jet, jet
from lbmux.tools.simulate.jet_trace import JetTrace

SMALL = Jet(JetTrace(30, 6, 4000, 120.0, 6.0), size=1009, entries=400, repeats=2)


def test_rows_and_panels_have_every_rule() -> None:
    reported: list[float] = []
    result = jet(SMALL, reported.append)
    names = ["full tracking", "JET", "lbmux", "lbmux, rendezvous"]
    assert [row["rule"] for row in result.rows] == names
    assert all(row["paper_broken"] is None for row in result.rows)
    for panel in result.panels:
        assert [line.label for line in panel.lines] == names and panel.lines[0].x[-1] == 120
        assert all(
            low <= y <= high for line in panel.lines for low, y, high in zip(line.low, line.y, line.high, strict=True)
        )
    assert reported == sorted(reported) and reported[-1] == pytest.approx(1)


def test_one_seed_gives_one_result() -> None:
    one = replace(SMALL, repeats=1)
    assert jet(one).rows == jet(one).rows != jet(replace(one, trace=replace(one.trace, seed=2))).rows
