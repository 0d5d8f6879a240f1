"""Decides which hosts are cut off, from the results of probes through the tunnel.  Pure.

A silent host is cut off only while another host answers. If none answers, the fault may be the mux's, or a filter may
drop the probes while traffic still passes. When the first host answers after that, the fault is gone or the agents have
just started. The others then get time to answer too, so that one host does not get all flows. A host that answers for
the first time gets traffic at once.

A mux that gets more packets than it can forward loses probes, too. While it knows that it is overloaded, a host must
miss more of them in a row: a flood then cuts off no host, and a host that dies meanwhile is still noticed.
"""

from collections.abc import Iterable, Mapping

from lbmux.addresses import Address
from lbmux.health.checker import Checker

RISE, FALL = 2, 3
OVERLOADED_MISSES = 7
"""Missing answers in a row that do not count while the mux is overloaded; the ``FALL`` ones after them do."""
SILENT = "no answer through the tunnel"
STARTING_S = 10.0
"""For this long a host that has never answered may be starting: it gets no traffic, but is not reported."""


class HostChecks:
    """The state of each host, by the probes through its tunnel."""

    def __init__(self) -> None:
        self._checkers: dict[Address, Checker] = {}
        self._answered = set[Address]()
        self._missed: dict[Address, int] = {}
        """The missing answers in a row of each host."""
        self._since: dict[Address, float] = {}
        """When each host was first tracked, in seconds since the epoch."""

    def configure(self, hosts: Iterable[Address], now: float) -> None:
        """Track exactly these hosts; those that were tracked before keep their state."""
        self._checkers = {host: self._checkers.get(host) or Checker(RISE, FALL, now) for host in hosts}
        self._since = {host: self._since.get(host, now) for host in self._checkers}
        self._answered &= self._checkers.keys()
        self._missed = {host: self._missed.get(host, 0) for host in self._checkers}

    def record(self, host: Address, is_answer: bool, now: float, is_overloaded: bool = False) -> bool:
        """Record the result of a probe; return whether ``cut_off`` may have changed.

        ``is_overloaded``: whether the mux that asked loses packets.
        """
        checker = self._checkers.get(host)
        if checker is None:
            return False
        self._missed[host] = 0 if is_answer else self._missed[host] + 1
        if is_overloaded and 0 < self._missed[host] <= OVERLOADED_MISSES:
            return False
        if is_answer and not self._any_answers():
            fresh = {other: Checker(RISE, FALL, now) for other in self._checkers if other != host}
            self._checkers.update(fresh)
        if is_answer and host not in self._answered:
            self._answered.add(host)
            checker = self._checkers[host] = Checker(RISE, FALL, now)
            checker.record(True, "answers", now)
            return True
        was_known = checker.was_probed
        changed = checker.record(is_answer, "answers" if is_answer else SILENT, now)
        return changed or checker.was_probed != was_known

    def describe(self, host: Address) -> str:
        """Return what the probes of a host have found; empty without probes."""
        checker = self._checkers.get(host)
        if checker is None:
            return ""
        if host not in self._answered:
            return f"host {host} has not answered through the tunnel yet"
        if not checker.is_down:
            return f"host {host} answers through the tunnel"
        others = "" if self._any_answers() else ", and no other host does"
        return f"host {host} does not answer through the tunnel{others}"

    @property
    def never_answered(self) -> set[Address]:
        return self._checkers.keys() - self._answered

    @property
    def unprobed(self) -> set[Address]:
        return {host for host, checker in self._checkers.items() if not checker.was_probed}

    @property
    def cut_off(self) -> Mapping[Address, float]:
        """The hosts that get no traffic, with the time at which each was cut off, in seconds since the epoch."""
        if not self._any_answers():
            return {}
        return {host: checker.since for host, checker in self._checkers.items() if checker.is_down}

    def reported(self, now: float) -> set[Address]:
        """Return the hosts that are cut off, without those that may only be starting."""
        return {host for host in self.cut_off if host in self._answered or now - self._since[host] >= STARTING_S}

    def _any_answers(self) -> bool:
        return any(checker.was_probed and not checker.is_down for checker in self._checkers.values())
