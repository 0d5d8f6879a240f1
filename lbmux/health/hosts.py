"""Hosts by what they answer to probes through the tunnel: which of them are cut off.  Pure.

A silent host is cut off only while another host answers.  If none does, the fault may lie with the mux or with what
filters the probes, and traffic may still get there.
"""

from collections.abc import Iterable, Mapping

from lbmux.addresses import Address
from lbmux.health.checker import Checker

RISE, FALL = 2, 3
SILENT = "no answer through the tunnel"


class HostChecks:
    def __init__(self) -> None:
        self._checkers: dict[Address, Checker] = {}

    def configure(self, hosts: Iterable[Address], now: float) -> None:
        """Know these hosts and no others; those that were known keep their state."""
        self._checkers = {host: self._checkers.get(host) or Checker(RISE, FALL, now) for host in hosts}

    def heard(self, host: Address, is_answer: bool, now: float) -> bool:
        """Take the result of a probe; whether ``cut_off`` may have changed."""
        checker = self._checkers.get(host)
        if checker is None:
            return False
        was_known = checker.was_probed
        changed = checker.heard(is_answer, "answers" if is_answer else SILENT, now)
        return changed or checker.was_probed != was_known

    @property
    def unsettled(self) -> set[Address]:
        return {host for host, checker in self._checkers.items() if not checker.was_probed}

    @property
    def cut_off(self) -> Mapping[Address, float]:
        """Hosts that get no traffic, each with since when (seconds since 1970)."""
        if not any(checker.was_probed and not checker.is_down for checker in self._checkers.values()):
            return {}
        return {host: checker.since for host, checker in self._checkers.items() if checker.is_down}
