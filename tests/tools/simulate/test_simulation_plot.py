"""Plots of simulations have a title, named axes with units, a legend, and the values."""

from dataclasses import asdict
from pathlib import Path

import pytest

from lbmux.tools.simulate.simulation_plot import draw
from lbmux.tools.simulate.simulation_result import Line, Panel

LINES = Panel("Lines", "time (s)", "entries", [Line("a", [0.0, 1.0], [2.0, 3.25], [1.0, 3.0], [2.5, 4.0])])
BARS = Panel("Bars", "method", "over-provisioning (%)", [Line("b", ["maglev", "ring"], [0.5, 41.9])], "bars")


@pytest.mark.slow
def test_titles_units_and_values_are_in_the_plot(tmp_path: Path) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none"}):  # text stays text
        draw({"run": [asdict(LINES), asdict(BARS)]}, tmp_path / "x.svg")
    picture = (tmp_path / "x.svg").read_text()
    for text in ("Lines", "time (s)", "entries", "Bars", "method", "over-provisioning (%)", ">3.25<", ">41.9<", "ring"):
        assert text in picture


def test_several_runs_are_named(tmp_path: Path) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none"}):
        draw({"first": [asdict(BARS)], "second": [asdict(BARS)]}, tmp_path / "x.svg")
    assert all(name in (tmp_path / "x.svg").read_text() for name in ("first", "second"))


def test_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no panels"):
        draw({"run": []}, tmp_path / "x.png")
