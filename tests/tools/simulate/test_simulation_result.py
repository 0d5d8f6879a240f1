"""Results of simulations: ranges over repeats, CSV, JSON, digits."""

import json
from pathlib import Path

import pytest

from lbmux.errors import LbmuxError
from lbmux.tools.simulate.simulation_result import Line, Panel, SimulationResult, Spread, digits, plain

RESULT = SimulationResult(
    "x", "Title", {"seed": 1}, [{"size": 7, "moved_percent": Spread(2.0, 1.0, 3.5)}, {"size": 11, "note": "a, b"}],
    [Panel("t", "size (slots)", "moved (%)", [Line.of("all", [(7.0, Spread(2.0, 1.0, 3.5))])])],
)  # fmt: skip


def test_spread_is_the_median_and_the_range() -> None:
    assert Spread.of([3, 1, 2, 10]) == Spread(2.5, 1.0, 10.0)
    assert str(Spread(1.2345, 0.5, 12345.6)) == "1.23 (0.5..12,346)"
    assert str(Spread(2.0, 2.0, 2.0)) == "2"


@pytest.mark.parametrize(
    ("number", "text"), [(0.0, "0"), (0.09567, "0.0957"), (29.697, "29.7"), (99.18, "99.2"), (7417, "7,417")]
)
def test_digits(number: float, text: str) -> None:
    assert digits(number) == text


def test_a_row_has_a_column_for_each_end_of_a_range() -> None:
    assert plain(RESULT.rows[0]) == {
        "size": 7, "moved_percent": 2.0, "moved_percent_low": 1.0, "moved_percent_high": 3.5,
    }  # fmt: skip


def test_csv_has_all_columns_of_all_rows(tmp_path: Path) -> None:
    RESULT.write_csv(tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text().splitlines() == [
        "size,moved_percent,moved_percent_low,moved_percent_high,note", "7,2.0,1.0,3.5,", '11,,,,"a, b"',
    ]  # fmt: skip


def test_csv_into_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(LbmuxError, match="No such file"):
        RESULT.write_csv(tmp_path / "none" / "x.csv")


def test_the_document_is_json_with_parameters_rows_and_panels() -> None:
    document = json.loads(json.dumps(RESULT.document()))
    assert (document["version"], document["simulation"], document["parameters"]) == (1, "x", {"seed": 1})
    assert document["rows"][1] == {"size": 11, "note": "a, b"}
    assert document["panels"][0]["lines"][0] == {"label": "all", "x": [7.0], "y": [2.0], "low": [1.0], "high": [3.5]}
