"""Ends and deadlines of overrides."""

import pytest

from lbmux.backends.override_commands import OverrideError, set_admin_state
from lbmux.backends.override_expiry import expire, next_time
from lbmux.backends.overrides import Override, Overrides
from tests.backends.test_overrides import TWO

KEY = ("web", "b1")
DRAINED, _ = set_admin_state("drain", "b1", "web", 1.0, until=60.0, deadline=20.0)(TWO, Overrides())


def test_the_next_time_is_a_deadline_or_an_end() -> None:
    assert next_time(DRAINED) == 20.0
    assert next_time(Overrides({KEY: Override(1.0, "drain", until=60.0)})) == 60.0
    assert next_time(Overrides({KEY: Override(1.0, "drain")})) is next_time(Overrides()) is None


def test_at_its_deadline_a_drained_backend_is_disabled() -> None:
    assert expire(19.9)(TWO, DRAINED) == (DRAINED, [])
    disabled, keys = expire(20.0)(TWO, DRAINED)
    assert keys == [KEY] and disabled.of == {KEY: Override(20.0, "disable", until=60.0)} and not disabled.removals


def test_at_its_end_an_override_is_dropped() -> None:
    assert expire(60.0)(TWO, DRAINED) == (Overrides(), [KEY])


def test_a_removed_backend_returns_at_the_end() -> None:
    removed, _ = set_admin_state("remove", "b1", "web", 1.0, until=60.0)(TWO, Overrides())
    assert set(removed.removals) == {KEY}
    assert expire(60.0)(TWO, removed) == (Overrides(), [KEY])


def test_another_command_replaces_end_and_deadline() -> None:
    again, _ = set_admin_state("drain", "b1", "web", 5.0)(TWO, DRAINED)
    assert next_time(again) is None


def test_only_drain_has_a_deadline() -> None:
    with pytest.raises(OverrideError, match="only drain has one"):
        set_admin_state("disable", "b1", "web", 1.0, deadline=20.0)
