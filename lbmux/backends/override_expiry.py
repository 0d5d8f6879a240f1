"""Ends of overrides: an override is dropped at its end, and a drained backend is disabled at its deadline.  Pure."""

from collections.abc import Iterator
from dataclasses import replace

from lbmux.backends.override_commands import Change
from lbmux.backends.overrides import Override, Overrides, with_overrides
from lbmux.backends.removal import BY_COMMAND, with_removals
from lbmux.config.models import BackendKey, Config


def next_time(overrides: Overrides) -> float | None:
    """Return when the next end or deadline is, in seconds since 1970."""
    return min((time for one in overrides.of.values() for time in (one.until, one.deadline) if time is not None),
               default=None)  # fmt: skip


def expire(now: float) -> Change:
    """Return the change that drops the overrides that have ended, and disables backends whose deadline has passed."""

    def change(file: Config, overrides: Overrides) -> tuple[Overrides, list[BackendKey]]:
        of = dict(_remaining(overrides, now))
        keys = [key for key, one in overrides.of.items() if of.get(key) != one]
        after = Overrides(of, overrides.removals)
        before = with_overrides(file, overrides)
        return with_removals(file, after, before, overrides.admin_states, now, BY_COMMAND), keys

    return change


def _remaining(overrides: Overrides, now: float) -> Iterator[tuple[BackendKey, Override]]:
    for key, one in overrides.of.items():
        if one.until is not None and one.until <= now:
            continue
        if one.deadline is not None and one.deadline <= now:
            yield key, replace(one, admin_state="disable", deadline=None, since=now)
        else:
            yield key, one
