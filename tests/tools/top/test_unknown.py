"""A mux that does not answer may forward on in the kernel: its rates are unknown, not 0, and no sum hides that."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lbmux.errors import ControlError
from lbmux.tools.top import top_loop
from lbmux.tools.top.readings import Reading
from lbmux.tools.top.top_loop import document, views
from lbmux.tools.top.view import View
from tests.tools.top.test_screen import text
from tests.tools.top.test_view import reading, together

SILENT = "nothing listens there"


def without_the_second(both: Reading) -> Reading:
    return replace(both, muxes={"mux1": both.muxes["mux1"]}, muted={"mux2": SILENT})


def seen(*readings: Reading) -> View:
    made = View()
    for one in readings:
        made.take(one)
    return made


BOTH = together(reading(10.0, 1000, 0), reading(10.0, 50_000, 0))
LATER = without_the_second(together(reading(11.0, 1300, 0, denied=5), reading(11.0, 99_000, 0)))


class TestOneOfTwo:
    made = seen(BOTH, LATER)

    def test_sums_are_marked_as_incomplete(self) -> None:
        web = next(line for line in text(self.made) if line.split()[0] == "web")
        assert web.split() == "web 192.0.2.1 tcp/80 1/2 5 + ? 300 + ? 240k + ? 30 + ?".replace("240k", "240.0k").split()

    def test_backends_with_unknown_rates_are_marked(self) -> None:
        made = seen(BOTH, LATER)
        made.press("enter")
        h1 = next(line for line in text(made) if line.split()[0] == "h1")
        assert "300 + ?" in h1 and "5 + ?" in h1

    def test_drops_name_it(self) -> None:
        assert text(self.made)[1] == "drops/s: denied 5, mux2 unknown"

    def test_a_note_says_why(self) -> None:
        assert text(self.made)[-2] == "?: the rates of mux2 are unknown; its kernel program may still forward"

    def test_the_drivers_programs_are_shown(self) -> None:
        said = document(self.made)
        assert (said["unknown"], said["services"][0]["packets_s"]) == (["mux2"], 300)

    def test_its_flows_are_not_listed_as_idle(self) -> None:
        made = seen(BOTH, replace(reading(11.0, 1, 0, flows=3), muted={"mux1": SILENT}))
        made.service, made.backend = "web", "h1"
        assert made.rows() == []


def test_the_first_second_after_it_is_back_is_unknown_as_well() -> None:
    back = together(reading(12.0, 1300, 0), reading(12.0, 99_000, 0))
    made = seen(BOTH, LATER, back)
    assert (made.unknown(), made.rows()[0]["packets_s"]) == (["mux2"], 0)
    made.take(together(reading(13.0, 1400, 0), reading(13.0, 99_900, 0)))
    assert (made.unknown(), made.rows()[0]["packets_s"]) == ([], 1000)


def silent(*readings: Reading) -> Any:
    """A source that has these readings, and then no answer."""
    left = iter(readings)

    def read(view: View) -> Reading:
        next_reading = next(left, None)
        if next_reading is None:
            raise ControlError(Path("mux1.sock"), SILENT)
        return next_reading

    return read


class TestTheOnlyOne:
    def test_rates_and_flows_are_unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(top_loop.time, "sleep", lambda seconds: None)
        shown = views(silent(reading(10.0, 1000, 0), reading(11.0, 3000, 0)), 0.0)
        assert next(shown).rows()[0]["packets_s"] == 2000
        made = next(shown)
        assert [(row["service"], row["packets_s"], row["flows"]) for row in made.rows()] == [
            ("web", None, None), ("dns", None, None),
        ]  # fmt: skip
        web = next(line for line in text(made) if line.split()[0] == "web")
        assert web.split()[4:] == ["unknown"] * 4
        assert text(made)[1] == "drops/s: mux1 unknown"

    def test_a_mux_that_never_answered_is_an_error(self) -> None:
        with pytest.raises(ControlError):
            next(views(silent(), 0.0))
