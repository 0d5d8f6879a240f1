"""Which states a node accepts, and the one that it stores."""

from pathlib import Path
from typing import Any

import pytest

from lbmux.manager.documents import StoredOverrides
from lbmux.manager.held_state import Judgement, NodeState, judge, read_state, taken_over, write_state
from lbmux.manager.node_messages import ProtocolError, State, pack_file
from lbmux.manager.revisions import digest

TEXT = "services: []\n"
HELD = NodeState(pool="p", epoch=5, revision=7, text=TEXT, stored=StoredOverrides(version=3))


def state(text: str = TEXT, *, with_file: bool = True, **other: Any) -> State:
    fields: dict[str, Any] = {"pool": "p", "epoch": 5, "revision": 7, "overrides": StoredOverrides(version=3)} | other
    file = pack_file(text.encode()) if with_file else None
    return State(digest=digest(text.encode()), file=file, **fields)


@pytest.mark.parametrize(
    ("message", "judgement"),
    [
        (state(), "same"),
        (state(with_file=False), "same"),
        (state(epoch=6), "same"),
        (state(revision=8), "new"),
        (state(overrides=StoredOverrides(version=4)), "new"),
        (state("services: [ ]\n"), "new"),
        (state(epoch=4), "stale"),
        (state(epoch=4, revision=8), "stale"),
        (state(revision=6), "behind"),
        (state(overrides=StoredOverrides(version=2)), "behind"),
        (state(revision=8, overrides=StoredOverrides(version=2)), "behind"),
        (state(epoch=6, revision=2), "new"),  # a backup was restored
        (state(pool="q"), "other_pool"),
        (state(pool="q", epoch=1), "other_pool"),
    ],
)
def test_classification_of_messages(message: State, judgement: Judgement) -> None:
    assert judge(HELD, message) == judgement
    assert judge(None, message) == "new"


def test_a_state_is_taken_over() -> None:
    new = taken_over(HELD, state("services: [ ]\n", epoch=6, revision=8))
    assert (new.epoch, new.revision, new.text) == (6, 8, "services: [ ]\n")
    assert taken_over(HELD, state(with_file=False, revision=9)).text == TEXT
    for held in (None, HELD):
        with pytest.raises(ProtocolError, match="lacks the file of revision 7"):
            taken_over(held, state("other", with_file=False))


def test_the_state_is_stored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "new" / "mux.pool"
    assert read_state(path) is None and not caplog.messages
    write_state(path, HELD)
    assert read_state(path) == HELD and path.stat().st_mode & 0o777 == 0o600
    path.write_text("{")
    assert read_state(path) is None and "without the last state" in caplog.text
    write_state(tmp_path / "new" / "mux.pool" / "x", HELD)  # not a directory: only logged
    assert "would use an older state" in caplog.text


def test_a_text_is_stored_once_for_all_its_states(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "mux.pool"
    write_state(path, HELD)
    (text,) = tmp_path.glob("mux.pool.*")
    at = text.stat().st_mtime_ns, text.stat().st_ino
    write_state(path, later := HELD.model_copy(update={"epoch": 6}))
    assert read_state(path) == later and (text.stat().st_mtime_ns, text.stat().st_ino) == at
    write_state(path, other := NodeState(pool="p", epoch=6, revision=8, text="x", stored=StoredOverrides()))
    assert read_state(path) == other and not text.exists() and len([*tmp_path.iterdir()]) == 2
    next(tmp_path.glob("mux.pool.*")).write_text("y")
    assert read_state(path) is None and "without the last state" in caplog.text


def test_a_state_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "mux.pool").write_text(HELD.model_dump_json())
    assert read_state(tmp_path / "mux.pool") == HELD
