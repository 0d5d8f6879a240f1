"""Which services keep all backends because too few are healthy, decided by the primary for all muxes.  Pure.

A watermark has a low and a high end, so the decision depends on what was decided before. Muxes that decide one by one
could differ for as long as the share of healthy backends is between the two ends.
"""

from collections.abc import Callable, Collection, Mapping

from lbmux.backends.effective import below_watermark
from lbmux.backends.overrides import AdminState
from lbmux.config.models import BackendKey, Service
from lbmux.manager.guard_rails import Wanted

IsUp = Callable[[BackendKey], bool | None]
"""Returns what agents reported of a backend; None: nothing."""


class PoolWatermarks:
    """The services with a watermark whose backends agents probe; the muxes decide about all others."""

    def __init__(self) -> None:
        self._services: list[Service] = []
        self._admin_states: Mapping[BackendKey, AdminState] = {}

    def configure(self, wanted: Wanted) -> None:
        probed = ((one, one.health) for one in wanted.services.values() if one.health is not None)
        self._services = [one for one, health in probed if health.by == "agent" and health.watermark is not None]
        self._admin_states = wanted.overrides.admin_states

    def below(self, is_up: IsUp, before: Collection[str]) -> tuple[str, ...]:
        """Return the names of the services that are below their watermark.

        ``before``: the last decision, which stands for a service with a backend that no agent has reported yet, as
        after an election.
        """
        return tuple(one.name for one in self._services if self._is_below(one, is_up, one.name in before))

    def _is_below(self, service: Service, is_up: IsUp, was_below: bool) -> bool:
        states = {(service.name, one.name): is_up((service.name, one.name)) for one in service.backends}
        if None in states.values():
            return was_below
        down = {key for key, state in states.items() if not state}
        return below_watermark(service, down, self._admin_states, was_below)
