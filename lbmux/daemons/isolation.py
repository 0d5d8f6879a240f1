"""Isolates a flooded VIP of an overloaded mux: makes it a black hole, and lets it back on parole.

The decisions are in lbmux.metrics.black_holes; here the gate counts and drops (lbmux.daemons.vip_gate).
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address

from lbmux.addresses import Address
from lbmux.api import answers, requests
from lbmux.api.protocol import VERSION
from lbmux.config.models import Config
from lbmux.daemons.kernel_shares import KernelShares
from lbmux.daemons.load_shedding import LoadShedding
from lbmux.daemons.vip_gate import VipGate
from lbmux.errors import LbmuxError
from lbmux.metrics.black_holes import BlackHoles, Change, Usage
from lbmux.metrics.fair_shares import Admitted, weights_of

WINDOW_S = 0.1
log = logging.getLogger(__name__)


class Isolation:
    """``shares`` are the fair shares of the same mux."""

    def __init__(self, gate: VipGate, shares: LoadShedding | KernelShares) -> None:
        self._gate, self._shares = gate, shares
        self.black_holes = BlackHoles()
        self.report: Callable[[Change], None] = _unreported
        """Gets each change; with a manager it is reported to the pool."""
        self._wanted, self._begun = False, 0.0

    def configure(self, config: Config) -> None:
        self._wanted = config.capacity_pps is not None and config.black_hole.enabled
        self.black_holes.configure(config.black_hole, config.capacity_pps, weights_of(config))
        self._apply(time.monotonic())

    @property
    def upstream(self) -> frozenset[Address]:
        """The VIPs whose packets routers are to drop."""
        return frozenset(vip for vip, one in self.black_holes.in_force.items() if one.is_upstream)

    def read(self, now: float, overloaded: bool, loses: bool) -> None:
        """Take what came since the last time, if that was a window ago (monotonic seconds), and decide again.

        ``loses``: whether the mux loses packets (`Overload.loses`).
        """
        is_open = self._wanted and (overloaded or bool(self.black_holes.in_force))
        if is_open != self._gate.is_open:
            self._gate.set(is_open)
            self._begun = 0.0
            self.black_holes.start_again()
        seconds = now - self._begun
        if not is_open or seconds < WINDOW_S:
            return
        usage, is_first, self._begun = self._gate.read(), not self._begun, now
        if is_first:
            return
        changes = self.black_holes.read(now, seconds, _as_sent(usage, self._shares), loses)
        for change in changes:
            if change.upstream_s is not None:
                log.warning("VIP %s has to be dropped upstream: %s", change.vip, change.reason)
            elif change.begins:
                log.warning("VIP %s is a black hole: %s", change.vip, change.reason)
            else:
                log.info("VIP %s is no longer a black hole: %s", change.vip, change.reason)
            self.report(change)
        if changes:
            self._apply(now)

    def _apply(self, now: float) -> None:
        in_force = self.black_holes.in_force
        self._gate.drop({vip: one.until - now for vip, one in in_force.items()})
        self._shares.isolate(in_force.keys())

    async def parole(self, request: requests.Parole) -> answers.Paroled:
        """Release a VIP at once. Raise LbmuxError if it is no black hole."""
        now, in_force = time.monotonic(), self.black_holes.in_force
        try:
            vip = ip_address(request.vip)
        except ValueError:
            raise LbmuxError(f"{request.vip!r} is not an IP address") from None
        if not self.black_holes.release(vip, now):
            others = ", ".join(map(str, in_force)) or "none"
            raise LbmuxError(f"VIP {vip} is not a black hole here; black holes: {others}")
        self._apply(now)
        log.info("VIP %s is no longer a black hole: by command", vip)
        self.report(Change(vip, begins=False, reason="by command"))
        return answers.Paroled(VERSION, str(vip))

    def describe(self) -> dict[str, answers.BlackHole]:
        now = time.monotonic()
        return {
            str(vip): answers.BlackHole(
                round(now - one.since, 3),
                round(max(one.until - now, 0.0), 3),
                one.relapses,
                self._gate.dropped(vip),
                one.is_upstream,
            )
            for vip, one in self.black_holes.in_force.items()
        }


def _unreported(change: Change) -> None:
    pass


def _as_sent(usage: Mapping[Address, Usage], shares: LoadShedding | KernelShares) -> dict[Address, Usage]:
    """Return the usage before packets were dropped at random in front of the gate.

    Of the connections that began, those count that are not dropped: no other can complete.
    """
    sent = dict[Address, Usage]()
    for vip, one in usage.items():
        before, behind = shares.thinned.get(vip, Admitted()), shares.limited.get(vip, Admitted())
        sent[vip] = replace(
            one, begins=one.begins / before.new, others=one.others / before.others, begun=one.begun * behind.new
        )
    return sent
