"""Changes that need `--force`: they would probably cause an outage.  Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from lbmux.backends.overrides import Overrides, with_overrides
from lbmux.config.models import Config, Service
from lbmux.errors import LbmuxError
from lbmux.plurals import counted

MOST_MOVED = 0.10
"""The share of live connections that a change may move without `--force`."""


@dataclass(frozen=True)
class Wanted:
    """A configuration with the overrides that apply to it; ``config`` is None before the first revision."""

    config: Config | None
    overrides: Overrides

    @cached_property
    def services(self) -> dict[str, Service]:
        """Services by name, with overrides."""
        if self.config is None:
            return {}
        return {one.name: one for one in with_overrides(self.config, self.overrides.without_removals()).services}

    def usable(self, service: Service) -> int:
        """Return the number of backends of a service that take new flows if they are healthy."""
        states = self.overrides.admin_states
        return sum(one.weight > 0 and (service.name, one.name) not in states for one in service.backends)


class GuardRailError(LbmuxError):
    """A change that needs `--force`, with the reasons."""

    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(["the change needs --force:", *self.reasons])


def check(before: Wanted, after: Wanted, moved: float | None = None, most_moved: float = MOST_MOVED) -> list[str]:
    """Return why a change needs `--force`; empty if it does not.

    ``moved``: the share of live connections that would move, as the nodes count it; None if they were not asked.
    """
    reasons = list(_services(before, after))
    if moved is not None and moved > most_moved:
        reasons.append(f"{moved:.1%} of the live connections would move; the limit is {most_moved:.1%}")
    return reasons


def _services(before: Wanted, after: Wanted) -> Iterator[str]:
    old, new = before.services, after.services
    overridden = {service for service, _ in (*before.overrides.of, *after.overrides.of)}
    for name, service in new.items():
        was = old.get(name)
        if was is service and name not in overridden:  # true for most of a large pool
            continue
        if not after.usable(service) and (was is None or before.usable(was)):
            yield f"service {name}: no usable backend would be left"
    for name, service in old.items():
        if name not in new and service.backends:
            yield f"service {name}: removed, with {counted(len(service.backends), 'backend')}"
        elif name in new and new[name] is not service:
            remaining = {one.name for one in new[name].backends}
            gone = sum(one.name not in remaining for one in service.backends)
            if 2 * gone > len(service.backends) and after.usable(new[name]):
                yield f"service {name}: {gone} of {counted(len(service.backends), 'backend')} would be removed"
