"""Overrides as the manager stores them: with author, reason and end, beside the revisions.  Pure."""

from collections.abc import Collection
from dataclasses import dataclass

from lbmux.backends.override_commands import Change, without_obsolete
from lbmux.backends.overrides import Override, Overrides
from lbmux.backends.pool_overrides import origins
from lbmux.config.models import BackendKey, Config
from lbmux.manager.documents import StoredOverride, StoredOverrides


@dataclass(frozen=True)
class Terms:
    """Who orders an override, why, when it ends, and when a drained backend is disabled."""

    by: str
    reason: str = ""
    until: float | None = None
    deadline: float | None = None


def as_overrides(stored: Collection[StoredOverride]) -> Overrides:
    """Return the overrides without author, reason and end, as nodes and guard rails use them."""
    return Overrides({
        (one.service, one.backend): Override(one.since, one.admin_state, one.weight, one.added) for one in stored
    })  # fmt: skip


def changed(
    stored: Collection[StoredOverride], config: Config, change: Change, terms: Terms
) -> tuple[tuple[StoredOverride, ...], list[BackendKey]]:
    """Apply a command, and return all overrides and the backends that it affects.

    Raise UnknownBackendError or OverrideError.  Backends whose override changes get the terms.
    """
    before = as_overrides(stored)
    after, keys = change(config, before)
    kept = {(one.service, one.backend): one for one in stored}
    return tuple(
        kept[key] if before.of.get(key) == override and key not in keys
        else _stored(key, override, terms)
        for key, override in after.of.items()
    ), keys  # fmt: skip


def fitting(stored: Collection[StoredOverride], config: Config) -> tuple[StoredOverride, ...]:
    """Drop overrides that a new file makes obsolete or invalid; the others act in all services of a pool."""
    overrides, kept = as_overrides(stored), {(one.service, one.backend): one for one in stored}
    origin = origins(config, overrides.of)
    return tuple(
        kept[origin[key]].model_copy(
            update={"service": key[0], "admin_state": override.admin_state, "added": override.added}
        )
        for key, override in without_obsolete(config, overrides).of.items()
    )


def unexpired(stored: Collection[StoredOverride], now: float) -> tuple[StoredOverride, ...]:
    """Return the overrides without those that have ended; backends whose deadline has passed are disabled."""
    moved = {"admin_state": "disable", "deadline": None, "since": now}
    return tuple(
        one.model_copy(update=moved) if one.deadline is not None and one.deadline <= now else one
        for one in stored if one.until is None or one.until > now
    )  # fmt: skip


def next_end(stored: StoredOverrides) -> float | None:
    """Return when the next override ends, or has its deadline."""
    times = [time for one in stored.overrides for time in (one.until, one.deadline)]
    times += [one.until for one in stored.routes]
    return min((time for time in times if time is not None), default=None)


def describe(one: StoredOverride) -> str:
    """Return what an override does: `drain`, `weight 5`, `added`."""
    parts = [one.admin_state or "", "" if one.weight is None else f"weight {one.weight}", "added" if one.added else ""]
    return ", ".join(filter(None, parts))


def _stored(key: BackendKey, override: Override, terms: Terms) -> StoredOverride:
    return StoredOverride(
        service=key[0], backend=key[1], admin_state=override.admin_state, weight=override.weight,
        added=override.added, since=override.since, by=terms.by, reason=terms.reason, until=terms.until,
        deadline=terms.deadline if override.admin_state == "drain" else None,
    )  # fmt: skip
