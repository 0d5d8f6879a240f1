"""Tracks the state of all backends: probe results, combined with an operator's overrides.

Probe results are saved in a file, because kernel tables survive the daemon: the next daemon that adopts them must not
bring back a backend that is down.  With new tables, every backend is probed again.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from lbmux.addresses import Address
from lbmux.backends import state_file
from lbmux.backends.auto_weights import WEIGHTS
from lbmux.backends.effective import below_watermarks, effective, with_auto_weights
from lbmux.backends.overrides import Override, Overrides
from lbmux.config.models import Backend, BackendKey, Config, Service, kind_of
from lbmux.health.checker import Checker, ProbeState

OVERRIDDEN_STATES = {"drain": "draining", "disable": "disabled", "remove": "removed"}
"""The displayed state of a backend with that override."""
UNCHECKED = "not probed", "no health check"
"""How the reason begins for a backend that is up because nothing probes it: without and with probes of its host."""
State = tuple[Backend, str, str, float | None]
"""A backend, its state, the reason, and the time since when in seconds since the epoch."""


class BackendTracker:
    """``path``: the file for probe results, if they are saved; ``clock`` returns seconds since the epoch."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._checkers: dict[BackendKey, Checker] = {}
        self.cut_off: Mapping[Address, float] = {}
        """Hosts that do not answer through the tunnel, with the time since when in seconds since the epoch."""
        self.describe_host: Callable[[Address], str] = _unprobed
        """Returns what the probes of a host have found; empty without probes."""
        self._in_force: frozenset[BackendKey] | None = frozenset()
        """All backends of the previous configuration; None: those of adopted tables, which are not known."""
        self._kept = frozenset[str]()
        """Services that keep all backends: too few are healthy (`below_watermarks`)."""
        self.kept_by_pool: frozenset[str] | None = None
        """Those of them that the pool's primary decides; None: it does not."""

        self.weights: Mapping[BackendKey, int] = {}
        """Those of backends with `weight: auto`, by the load of their hosts."""

    def configure(self, config: Config) -> None:
        """Track exactly the backends of ``config``; those that were tracked before keep their state.

        A new backend counts as down until its first success, so that a dead one gets no flows.
        """
        known: dict[BackendKey, Checker] = {}
        before = self._in_force
        for service in config.services:
            for backend in service.backends if service.health else ():
                assert service.health is not None
                key = service.name, backend.name
                begins_up = before is None or key in before
                checker = self._checkers.get(key) or Checker(1, 1, self._clock(), begins_up=begins_up)
                counts = service.health.by == "mux"  # the agent applies `rise` and `fall` itself
                checker.rise, checker.fall = (service.health.rise, service.health.fall) if counts else (1, 1)
                known[key] = checker
        self._checkers = known
        self._in_force = frozenset((service.name, one.name) for service in config.services for one in service.backends)
        self.weights = {key: weight for key, weight in self.weights.items() if key in self._in_force}

    def record(self, key: BackendKey, healthy: bool, reason: str) -> bool:
        """Record a probe result; return whether the backend's state changed."""
        checker = self._checkers.get(key)
        return checker is not None and checker.record(healthy, reason, self._clock())

    def was_probed(self, key: BackendKey) -> bool:
        """Return whether a probe result is known; True for a backend that is not tracked."""
        return key not in self._checkers or self._checkers[key].was_probed

    def unprobed(self) -> set[BackendKey]:
        return {key for key, checker in self._checkers.items() if not checker.was_probed}

    def save(self) -> None:
        """Save the probe results for ``restore``."""
        lines: list[list[object]] = [
            [*key, checker.state, checker.reason, checker.since]
            for key, checker in self._checkers.items()
            if checker.was_probed
        ]
        lines += [[service] for service in sorted(self._kept)]
        lines += [[*key, weight] for key, weight in self.weights.items()]
        if self._path is not None:
            state_file.write(self._path, lines, "after a restart, backends that are down will count as up at first")

    def restore(self) -> None:
        """Restore the results of a former process whose tables are still in force; other backends count as up."""
        self._in_force = None
        if self._path is not None:
            self._checkers = state_file.read(self._path, _read_checkers, "backends that were down count as up at first")
            self._kept = frozenset(state_file.read(self._path, _kept, "no service counts as kept by its watermark"))
            self.weights = state_file.read(self._path, _weights, "weights follow the load from their first value on")

    @property
    def down(self) -> set[BackendKey]:
        return _down(self._checkers)

    def effective(self, config: Config, overrides: Overrides, *, dry_run: bool = False) -> Config:
        """Return the configuration of the tables; ``dry_run``: the caller will not apply it."""
        probed = {service.name for service in config.services if service.health}
        down = {key for key in self.down if key[0] in probed}  # without probes, old results mean nothing
        down |= self._new(config)
        kept = below_watermarks(config, down, overrides.admin_states, self.cut_off, self._kept, self.kept_by_pool)
        if not dry_run:
            self._kept = kept
        return effective(config, down, overrides.admin_states, self.cut_off, kept, self.weights)

    def _new(self, config: Config) -> set[BackendKey]:
        """Return the new backends that will be probed."""
        if self._in_force is None:
            return set()
        probed = ((service.name, one.name) for service in config.services if service.health for one in service.backends)
        return set(probed) - self._in_force - self._checkers.keys()

    def lines(self, file: Config, wanted: Config, overrides: Overrides) -> list[dict[str, Any]]:
        """Return the answer of the control socket; safe to call in a thread while probes run."""
        inputs = self._checkers.copy(), self.cut_off, self._kept, self.describe_host, self.kept_by_pool
        return states(file, with_auto_weights(wanted, self.weights), overrides, *inputs)


def _unprobed(host: Address) -> str:
    return ""


def states(
    file: Config, wanted: Config, overrides: Overrides, checkers: Mapping[BackendKey, Checker],
    cut_off: Mapping[Address, float] = MappingProxyType({}), kept: Collection[str] = (),
    describe_host: Callable[[Address], str] = _unprobed, kept_by_pool: Collection[str] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return each backend's state, reason and time, also of backends without a row in the tables.

    ``wanted``: the ``file`` with overrides; ``kept``: the services that were below their watermark; ``describe_host``:
    what probes of a host have found; ``kept_by_pool``: as in `below_watermarks`.
    """
    lines = list[dict[str, Any]]()
    kept = below_watermarks(wanted, _down(checkers), overrides.admin_states, cut_off, kept, kept_by_pool)
    for service in wanted.services:
        states = _of_service(service, overrides, checkers, service.name in kept, cut_off, describe_host)
        lines += [_line(wanted, service, *state) for state in states]
    listed = {(line["service"], line["backend"]) for line in lines}
    for service in file.services:
        for backend in service.backends:
            override = overrides.of.get((service.name, backend.name))
            if override is not None and override.admin_state == "remove" and (service.name, backend.name) not in listed:
                lines.append(_line(file, service, backend, OVERRIDDEN_STATES["remove"], "by command", override.since))
    return lines


def _down(checkers: Mapping[BackendKey, Checker]) -> set[BackendKey]:
    return {key for key, checker in checkers.items() if checker.is_down}


def _of_service(
    service: Service,
    overrides: Overrides,
    checkers: Mapping[BackendKey, Checker],
    are_kept: bool,
    cut_off: Mapping[Address, float],
    describe_host: Callable[[Address], str],
) -> Iterator[State]:
    """Yield the states of a service's backends; ``are_kept``: backends that are down stay in the tables."""
    for backend in service.backends:
        key = service.name, backend.name
        host = describe_host(backend.tunnel_to)
        checker = _cut_off(checkers.get(key), cut_off.get(backend.tunnel_to), backend)
        state, reason, since = _state(backend, overrides.of.get(key), checker, host)
        if key in overrides.removals and state != "down":
            one = overrides.removals[key]
            state, reason, since = "removing", one.reason, one.since
        elif state == "down" and are_kept:
            reason += "; kept: fewer backends than the watermark are healthy"
        yield backend, state, reason, since


def _cut_off(checker: Checker | None, since: float | None, backend: Backend) -> Checker | None:
    """Mark a backend as down if its host does not answer through the tunnel, whatever direct probes say."""
    if since is None or (checker is not None and checker.is_down):
        return checker
    why = f"host {backend.tunnel_to} does not answer through the tunnel: is its agent running?"
    return Checker(1, 1, since, "down", f"{why} (direct probe: {checker.reason})" if checker is not None else why)


def _state(
    backend: Backend, override: Override | None, checker: Checker | None, host: str
) -> tuple[str, str, float | None]:
    """Return state, reason and time; an override comes first, unless the backend is down.

    ``host``: what the probes of the host have found, for a backend that is not probed itself.
    """
    state, reason, since = "up", f"{UNCHECKED[1]}; {host}" if host else UNCHECKED[0], None
    if checker is not None:
        state, reason, since = "down" if checker.is_down else "up", checker.reason, checker.since
    if (
        override is not None
        and override.admin_state is not None
        and (state == "up" or override.admin_state == "disable")
    ):
        return OVERRIDDEN_STATES[override.admin_state], _by_command(override), override.since
    changes = [*_changes(override)]
    if state == "up" and backend.weight == 0:
        state, reason, since = "draining", "" if changes else "weight 0 in the configuration", None
        if override is not None and changes:
            since = override.since
    return state, "; ".join(filter(None, (reason, *changes))), since


def _by_command(override: Override) -> str:
    until = f", until {_text(override.until)}" if override.until is not None else ""
    deadline = f", disabled at {_text(override.deadline)}" if override.deadline is not None else ""
    return f"by command{until}{deadline}"


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


def _read_checkers(lines: Any) -> dict[BackendKey, Checker]:
    checkers = {
        (str(s), str(b)): Checker(1, 1, state_file.seconds(since), state, str(why))
        for s, b, state, why, since in (line for line in lines if len(line) == 5)
    }
    if not all(checker.state in get_args(ProbeState) for checker in checkers.values()):
        raise ValueError("unknown state")
    return checkers


def _kept(lines: Any) -> dict[str, bool]:
    return {str(line[0]): True for line in lines if len(line) == 1}


def _weights(lines: Any) -> dict[BackendKey, int]:
    weights = {(str(line[0]), str(line[1])): int(line[2]) for line in lines if len(line) == 3}
    if not all(WEIGHTS[0] <= weight <= WEIGHTS[1] for weight in weights.values()):
        raise ValueError("a weight out of bounds")
    return weights


def _text(since: float | None) -> str | None:
    return None if since is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
