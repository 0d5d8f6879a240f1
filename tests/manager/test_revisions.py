"""The revision in a file's first line, conflicts, roll-backs, and where a revision is in force."""

import pytest

from lbmux.config.models import Config
from lbmux.manager.documents import NodeReport, Revision, Rollout
from lbmux.manager.revisions import (
    StaleRevisionError,
    UnknownRevisionError,
    check_current,
    new_revision,
    rollback_target,
    rollout,
    split_header,
    with_header,
)

TEXT = b"services: []  # none yet\n"


def revision(number: int, message: str = "") -> Revision:
    return new_revision(number, TEXT, Config(services=()), "alice", 1764460800.0, message)


def test_a_file_carries_its_revision() -> None:
    text = with_header(TEXT, revision(12, "two\nlines"))
    assert text == b"# lbmux revision 12, 2025-11-30T00:00:00Z, alice: two lines\n" + TEXT
    assert split_header(text) == (12, TEXT)


@pytest.mark.parametrize("text", [b"", TEXT, b"# lbmux revision x\n", b"#lbmux revision 3\n", b"\n# lbmux revision 3"])
def test_a_file_without_a_revision_line(text: bytes) -> None:
    assert split_header(text) == (None, text)


def test_a_change_of_an_old_revision_is_refused() -> None:
    check_current(None, 7)
    check_current(7, 7)
    with pytest.raises(StaleRevisionError, match="based on revision 6, but revision 7 is current"):
        check_current(6, 7)


def test_the_same_file_has_the_same_digest() -> None:
    assert revision(1).digest == revision(2).digest and len(revision(1).digest) == 16


@pytest.mark.parametrize(("current", "wanted", "target"), [(3, None, 2), (3, 1, 1), (3, 3, 3)])
def test_a_rollback_restores_the_one_before_or_another(current: int, wanted: int | None, target: int) -> None:
    assert rollback_target(current, wanted) == target


@pytest.mark.parametrize(
    ("current", "wanted", "reason"),
    [
        (1, None, "revision 1 is the first one"), (0, None, "there is no revision yet"),
        (3, 4, "revision 4 does not exist"), (3, -1, "revision -1 does not exist"),
    ],
)  # fmt: skip
def test_a_rollback_to_what_does_not_exist(current: int, wanted: int | None, reason: str) -> None:
    with pytest.raises(UnknownRevisionError, match=reason):
        rollback_target(current, wanted)


def test_where_a_revision_is_in_force() -> None:
    def report(node: str, number: int, refused: str = "") -> NodeReport:
        return NodeReport(node=node, role="mux", revision=number, overrides=0, refused=refused, time=0.0)

    reports = [report("mux1", 3), report("mux2", 3, "table full"), report("mux3", 2)]
    assert rollout(3, reports) == Rollout(in_force=1, nodes=3, refused={"mux2": "table full"})
    assert rollout(2, reports) == Rollout(in_force=1, nodes=3)
