"""Changes of a replay: their text, their errors, and where they cut a batch."""

from pathlib import Path

import pytest

from lbmux.errors import TableError
from lbmux.frames.captured_frames import CapturedFrames
from lbmux.tools.replay.replay import ReplayMux
from lbmux.tools.replay.replay_changes import (
    Loss,
    Timeline,
    TooLateError,
    UnusableChangeError,
    load_reloads,
    parse_loss,
    parse_reload,
    parse_time,
    text_of,
)
from tests.tools.replay.test_replay import HOP, LOCAL, config

SECOND_NS = 10**9


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("0s", 0), ("1.5s", 1.5), ("200ms", 0.2), ("2m", 120), ("1h", 3600)]
)
def test_time(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds * SECOND_NS


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "5 s", "1,5s", "5d", "\u0665s"])
def test_wrong_time(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time, such as 5s"):
        parse_time(text)


def test_reload() -> None:
    assert parse_reload("5s=a=b.yaml") == (5 * SECOND_NS, Path("a=b.yaml"))
    for text in ("5s", "5s=", "new.yaml"):
        with pytest.raises(ValueError, match=r"is not TIME=FILE, such as 5s=new\.yaml"):
            parse_reload(text)


def test_loss() -> None:
    assert parse_loss("mux2@10s") == (10 * SECOND_NS, 1)
    for text in ("mux1", "mux0@1s", "1@1s", "mux01@1s", "@1s", "mux1@"):
        with pytest.raises(ValueError, match="is not"):
            parse_loss(text)


def test_time_as_text() -> None:
    assert [text_of(time) for time in (0, 5 * SECOND_NS, SECOND_NS // 4)] == ["0 s", "5 s", "0.25 s"]


def test_invalid_configuration_says_file_line_field_and_time(tmp_path: Path) -> None:
    path = tmp_path / "new.yaml"
    path.write_text("services:\n  - vip: nowhere\n    name: web\n    protocol: tcp\n    port: 80\n    backends: []\n")
    with pytest.raises(UnusableChangeError) as caught:
        load_reloads([(5 * SECOND_NS, path)])
    assert str(caught.value) == (
        f"{path}:2: services[0].vip: is not an IPv4 or IPv6 address\n"
        f"{path}: cannot come into force at 5 s of the capture"
    )


def test_configuration_that_does_not_fit_is_one_line() -> None:
    error = UnusableChangeError(Path("new.yaml"), SECOND_NS, TableError("backends", 9, 8))
    assert str(error) == (
        "new.yaml: cannot come into force at 1 s of the capture: backends: 9 entries needed, capacity 8"
    )


def batch(*seconds: float) -> CapturedFrames:
    frames = CapturedFrames(len(seconds))
    frames.time_ns[:] = [round(time * SECOND_NS) for time in seconds]
    frames.count = len(seconds)
    return frames


def parts(timeline: Timeline, *seconds: float) -> list[tuple[list[int], int]]:
    """For each part of a batch at these times: which muxes are lost before it, and its number of frames."""
    cut = timeline.parts(batch(*seconds))
    return [([change.mux for change in changes if isinstance(change, Loss)], part.count) for changes, part in cut]


def test_changes_cut_a_batch_where_they_come_into_force() -> None:
    timeline = Timeline([Loss(3 * SECOND_NS, 1), Loss(2 * SECOND_NS, 0)])
    assert parts(timeline, 100, 101, 102, 102.5, 104) == [([], 2), ([0], 2), ([1], 1)]
    assert timeline.start_ns == 100 * SECOND_NS and not timeline.pending


def test_changes_at_one_time_and_at_the_first_packet() -> None:
    timeline = Timeline([Loss(0, 0), Loss(0, 1), Loss(SECOND_NS, 2)])
    assert parts(timeline, 100, 100.5) == [([0, 1], 2)]
    assert parts(timeline, 101, 102) == [([2], 2)]


def test_packet_that_is_late_does_not_go_back_before_a_change() -> None:
    timeline = Timeline([Loss(SECOND_NS, 0)])
    assert parts(timeline, 100, 101, 99, 102) == [([], 1), ([0], 3)]
    assert parts(timeline, 99) == [([], 1)]


def test_change_after_the_last_packet_is_too_late() -> None:
    timeline = Timeline([Loss(SECOND_NS, 0), Loss(9 * SECOND_NS, 1)])
    parts(timeline, 100, 101.5)
    with pytest.raises(TooLateError) as caught:
        timeline.check()
    assert str(caught.value) == "mux2 lost at 9 s: the capture ends at 1.5 s"


def test_slots_that_a_reload_has_changed_are_steady_again_in_a_long_capture() -> None:
    """The capture's clock counts, as it does in a mux that runs for this long."""
    mux = ReplayMux(config(2), [LOCAL], HOP)
    mux.reload(config(3), 100 * SECOND_NS)
    assert mux.control.slots.is_marked()
    mux.forward(batch(500))
    assert mux.control.slots.is_marked()
    for second in (1500, 1510):
        mux.forward(batch(second))
    assert not mux.control.slots.is_marked()
