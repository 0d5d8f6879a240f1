"""Overrides with author, reason and end."""

import pytest

from lbmux.backends.override_commands import UnknownBackendError, add, set_admin_state, set_weight
from lbmux.manager.documents import StoredOverride, StoredOverrides
from lbmux.manager.stored_overrides import Terms, as_overrides, changed, describe, fitting, next_end, unexpired
from tests.backends.test_overrides import TWO, backend, configured
from tests.backends.test_pool_overrides import configured as configured_pool

DRAINED, _ = changed((), TWO, set_admin_state("drain", "b1", "web", 1.0), Terms("alice", "new disk", 60.0, 20.0))


def test_a_command_is_stored_with_author_reason_and_end() -> None:
    (one,) = DRAINED
    assert one == StoredOverride(
        service="web",
        backend="b1",
        admin_state="drain",
        since=1.0,
        by="alice",
        reason="new disk",
        until=60.0,
        deadline=20.0,
    )
    assert as_overrides(DRAINED).admin_states == {("web", "b1"): "drain"}


def test_others_keep_their_authors() -> None:
    stored, keys = changed(DRAINED, TWO, set_weight(5, "b2", "web", 2.0), Terms("bob"))
    assert keys == [("web", "b2")] and stored[0] == DRAINED[0]
    assert (stored[1].by, stored[1].weight, stored[1].until) == ("bob", 5, None)


def test_a_repeated_command_changes_reason_and_end() -> None:
    stored, _ = changed(DRAINED, TWO, set_admin_state("drain", "b1", "web", 5.0), Terms("bob", "still"))
    assert [(one.by, one.reason, one.until, one.since) for one in stored] == [("bob", "still", None, 1.0)]


def test_the_end_of_an_override() -> None:
    stored, _ = changed(DRAINED, TWO, set_admin_state(None, "b1", "web", 5.0), Terms("bob"))
    assert stored == ()
    assert unexpired(DRAINED, 19.9) == DRAINED and unexpired(DRAINED, 60.0) == ()
    assert next_end(StoredOverrides(overrides=DRAINED)) == 20.0 and next_end(StoredOverrides()) is None


def test_a_deadline_disables_a_drained_backend() -> None:
    (one,) = disabled = unexpired(DRAINED, 20.0)
    assert (one.admin_state, one.since, one.by, one.until, one.deadline) == ("disable", 20.0, "alice", 60.0, None)
    assert next_end(StoredOverrides(overrides=disabled)) == 60.0 and unexpired(disabled, 59.9) == disabled


def test_a_backend_that_does_not_exist() -> None:
    with pytest.raises(UnknownBackendError):
        changed((), TWO, set_admin_state("drain", "b7", None, 1.0), Terms("alice"))


def test_a_new_file_ends_what_it_makes_obsolete() -> None:
    stored, _ = changed(DRAINED, TWO, add("web", {"name": "b9", "dip": "10.0.2.9"}, 3.0), Terms("alice"))
    assert [describe(one) for one in stored] == ["drain", "added"]
    assert fitting(stored, TWO) == stored
    assert fitting(stored, configured(backend(1), backend(2, weight=2), backend(9))) == DRAINED


def test_an_added_backend_survives_the_store() -> None:
    stored, _ = changed((), TWO, add("web", {"dip": "10.0.2.9", "weight": 3}, 3.0), Terms("alice"))
    text = StoredOverrides(version=1, overrides=stored).model_dump_json()
    assert StoredOverrides.model_validate_json(text).overrides == stored


def test_a_service_that_joins_a_pool_takes_over_its_overrides() -> None:
    before, after = configured_pool("web", own=("tls",)), configured_pool("web", "tls", own=())
    stored, _ = changed((), before, set_admin_state("drain", "b1", "web", 1.0), Terms("alice", "new disk", 60.0, 20.0))
    assert fitting(stored, after) == (*stored, stored[0].model_copy(update={"service": "tls"}))
