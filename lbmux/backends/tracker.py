"""The lives of all backends: what the probes found, beside what an operator ordered.

What the probes found is kept in a file for tables that outlive the daemon: whoever adopts them is not to bring back
what is down in them.  With new tables all is found anew.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from lbmux.addresses import Address
from lbmux.backends import state_file
from lbmux.backends.effective import at_hosts, below_watermark, effective
from lbmux.backends.overrides import Override, Overrides
from lbmux.config.models import Backend, BackendKey, Config, Service, kind_of
from lbmux.health.checker import Checker, ProbeState

OVERRIDDEN_STATES = {"drain": "draining", "disable": "disabled", "remove": "removed"}
"""The state of a backend of which that is wanted."""
State = tuple[Backend, str, str, float | None]
"""A backend's state, why, and since when."""


class BackendTracker:
    """``path``: where it is kept what was found, if it is; ``clock``: seconds since the epoch."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._checkers: dict[BackendKey, Checker] = {}
        self.cut_off: Mapping[Address, float] = {}
        """Hosts that do not answer through the tunnel, each with since when."""
        self._in_force: frozenset[BackendKey] | None = frozenset()
        """All backends of the configuration before; None: of tables that were adopted, whichever they have."""

    def configure(self, config: Config) -> None:
        """Know the backends of ``config`` and no others; those that were known keep their state.

        A backend that was not in force before counts as down until it is heard of: a dead one would get flows.
        """
        known: dict[BackendKey, Checker] = {}
        before = self._in_force
        for service in config.services:
            for backend in service.backends if service.health else ():
                assert service.health is not None
                key = service.name, backend.name
                begins_up = before is None or key in before
                checker = self._checkers.get(key) or Checker(1, 1, self._clock(), begins_up=begins_up)
                counts = service.health.by == "mux"  # an agent has counted already
                checker.rise, checker.fall = (service.health.rise, service.health.fall) if counts else (1, 1)
                known[key] = checker
        self._checkers = known
        self._in_force = frozenset((service.name, one.name) for service in config.services for one in service.backends)

    def heard(self, key: BackendKey, healthy: bool, reason: str) -> bool:
        """Take a probe's result; whether the backend's state changed."""
        checker = self._checkers.get(key)
        return checker is not None and checker.heard(healthy, reason, self._clock())

    def is_settled(self, key: BackendKey) -> bool:
        """Whether probes have said if it is up; of a backend that nobody has, there is nothing to say."""
        return key not in self._checkers or self._checkers[key].was_probed

    def unsettled(self) -> set[BackendKey]:
        return {key for key, checker in self._checkers.items() if not checker.was_probed}

    def keep(self) -> None:
        """What the probes found, for ``recall``."""
        lines = [
            [*key, checker.state, checker.reason, checker.since]
            for key, checker in self._checkers.items()
            if checker.was_probed
        ]
        if self._path is not None:
            state_file.write(self._path, lines, "a restart will not know what is down")

    def recall(self) -> None:
        """Take what was found before, by a process whose tables are in force still; what it did not find is up."""
        self._in_force = None
        if self._path is not None:
            self._checkers = state_file.read(self._path, _checked, "what was down begins as up")

    @property
    def down(self) -> set[BackendKey]:
        return _down(self._checkers)

    def effective(self, config: Config, overrides: Overrides) -> Config:
        probed = {service.name for service in config.services if service.health}
        down = {key for key in self.down if key[0] in probed}  # what was found is of no meaning without probes
        return effective(config, down | self._new(config), overrides.admin_states, self.cut_off)

    def _new(self, config: Config) -> set[BackendKey]:
        """Backends that are to be probed, and were not in force before."""
        if self._in_force is None:
            return set()
        probed = ((service.name, one.name) for service in config.services if service.health for one in service.backends)
        return set(probed) - self._in_force - self._checkers.keys()

    def lines(self, file: Config, wanted: Config, overrides: Overrides) -> list[dict[str, Any]]:
        """As the control socket answers; may be called in a thread while probes go on."""
        return states(file, wanted, overrides, self._checkers.copy(), self.cut_off)


def states(
    file: Config, wanted: Config, overrides: Overrides, checkers: Mapping[BackendKey, Checker],
    cut_off: Mapping[Address, float] = MappingProxyType({}),
) -> list[dict[str, Any]]:  # fmt: skip
    """Each backend's state, why, and since when; ``wanted``: the ``file`` as ordered.

    Of all, also of those that have no row in the tables.
    """
    down, admin_states, found = _down(checkers), overrides.admin_states, list[dict[str, Any]]()
    for service in wanted.services:
        are_kept = below_watermark(service, down | at_hosts(service, cut_off), admin_states)
        states = _of_service(service, overrides, checkers, are_kept, cut_off)
        found += [_line(wanted, service, *state) for state in states]
    there = {(line["service"], line["backend"]) for line in found}
    for service in file.services:
        for backend in service.backends:
            override = overrides.of.get((service.name, backend.name))
            if override is not None and override.admin_state == "remove" and (service.name, backend.name) not in there:
                found.append(_line(file, service, backend, OVERRIDDEN_STATES["remove"], "by command", override.since))
    return found


def _down(checkers: Mapping[BackendKey, Checker]) -> set[BackendKey]:
    return {key for key, checker in checkers.items() if checker.is_down}


def _of_service(
    service: Service,
    overrides: Overrides,
    checkers: Mapping[BackendKey, Checker],
    are_kept: bool,
    cut_off: Mapping[Address, float],
) -> Iterator[State]:
    """``are_kept``: whether those that are down are in the tables all the same."""
    for backend in service.backends:
        key = service.name, backend.name
        checker = _cut_off(checkers.get(key), cut_off.get(backend.tunnel_to), backend)
        state, reason, since = _state(backend, overrides.of.get(key), checker)
        if key in overrides.removals and state != "down":
            one = overrides.removals[key]
            state, reason, since = "leaving", one.reason, one.since
        elif state == "down" and are_kept:
            reason += "; kept, since too few seem healthy"
        yield backend, state, reason, since


def _cut_off(checker: Checker | None, since: float | None, backend: Backend) -> Checker | None:
    """A backend whose host does not answer through the tunnel is down, whatever direct probes say."""
    if since is None or (checker is not None and checker.is_down):
        return checker
    why = f"host {backend.tunnel_to} does not answer through the tunnel: is its agent running?"
    return Checker(1, 1, since, "down", f"{why} (direct probe: {checker.reason})" if checker is not None else why)


def _state(backend: Backend, override: Override | None, checker: Checker | None) -> tuple[str, str, float | None]:
    """What an order says comes first, unless the backend is down."""
    state, reason, since = "up", "not probed", None
    if checker is not None:
        state, reason, since = "down" if checker.is_down else "up", checker.reason, checker.since
    if (
        override is not None
        and override.admin_state is not None
        and (state == "up" or override.admin_state == "disable")
    ):
        return OVERRIDDEN_STATES[override.admin_state], "by command", override.since
    said = [*_changes(override)]
    if state == "up" and backend.weight == 0:
        state, reason, since = "draining", "" if said else "weight 0 in the configuration", None
        if override is not None and said:
            since = override.since
    return state, "; ".join(filter(None, (reason, *said))), since


def _changes(override: Override | None) -> Iterator[str]:
    if override is not None and override.added is not None:
        yield "added by command"
    if override is not None and override.weight is not None:
        yield f"weight {override.weight} by command"


def _line(
    config: Config, service: Service, backend: Backend, state: str, reason: str, since: float | None
) -> dict[str, Any]:
    return {
        "service": service.name, "backend": backend.name, "state": state, "reason": reason, "since": _text(since),
        "dip": str(backend.dip), "port": backend.port, "host": str(backend.tunnel_to), "weight": backend.weight,
        "tunnel": kind_of(config, service, backend),
    }  # fmt: skip


def _checked(lines: Any) -> dict[BackendKey, Checker]:
    found = {(str(s), str(b)): Checker(1, 1, float(since), state, str(why)) for s, b, state, why, since in lines}
    if not all(checker.state in get_args(ProbeState) for checker in found.values()):
        raise ValueError("a state that there is not")
    return found


def _text(since: float | None) -> str | None:
    return None if since is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
