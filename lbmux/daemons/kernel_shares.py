"""Fair shares of ``capacity_pps`` in a mux's kernel program: while packets exceed it, the services of a VIP over its
share are held to that, as by ``packets_per_s``.

The program counts what it drops, and new flows have half the burst only, so established ones pass first.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray

from lbmux.addresses import Address
from lbmux.config.models import Config, Service
from lbmux.datapath.verdicts import Verdict
from lbmux.metrics.fair_shares import Admitted, fair_shares, weights_of
from lbmux.tables.mux_tables import MuxTables

WINDOW_S = 0.1
USED = 0.8
"""A VIP that uses this part of its share wants more."""
ELSEWHERE = 0.5
"""The largest part of the capacity that VIPs give up for packets to no service, which are not dropped here."""


class KernelShares:
    """``admitted``: the VIPs over their share, and what they get, as ``LoadShedding`` has it."""

    unseen = 0
    """Packets that no verdict counts: none."""
    thinned: Mapping[Address, Admitted] = {}
    """What gets to the gate of VIPs that packets are dropped of before it: none."""

    def __init__(self, mux: MuxTables) -> None:
        self._mux, self._tables = mux, mux.tables
        self.admitted: Mapping[Address, Admitted] = {}
        self.dropped = 0.0
        self._capacity: int | None = None
        self._weights: dict[Address, int] = {}
        self._limits: dict[Address, float] = {}
        self._begun, self._verdicts = 0.0, self._by_verdict()
        self._packets: NDArray[np.float64] | None = None
        """The packets to each backend at the last reading; None while there are not too many."""

    def configure(self, config: Config) -> None:
        self._capacity, self._weights = config.capacity_pps, weights_of(config)
        if self._capacity is None:
            self._hold({}, {})

    @property
    def limited(self) -> Mapping[Address, Admitted]:
        """What is not dropped behind the gate, of each VIP that packets are dropped of there."""
        return self.admitted

    def isolate(self, vips: Collection[Address]) -> None:
        """Release the VIPs that are black holes now: the gate drops all their packets."""
        if self._limits.keys() & vips:
            self._hold({}, {})  # the next window decides what the others get

    def read(self, now: float) -> None:
        """Decide again what VIPs are held to, if a window has passed since the last time (monotonic seconds)."""
        seconds = now - self._begun
        if self._capacity is None or seconds < WINDOW_S:
            return
        before, self._verdicts, self._begun = self._verdicts, self._by_verdict(), now
        verdicts = (self._verdicts - before) / seconds
        if self._limits:
            self.dropped += float(verdicts[Verdict.OVER_PACKET_RATE]) * seconds
        if verdicts.sum() - verdicts[Verdict.BLACK_HOLED] <= self._capacity:
            self._packets = None
            self._hold({}, {})
            return
        earlier, self._packets = self._packets, self._tables.traffic["packets"].sum(0).astype(float)
        if earlier is not None:
            self._decide(self._capacity, verdicts, (self._packets - earlier).clip(0) / seconds)

    def _decide(self, capacity: int, verdicts: NDArray[np.float64], packets: NDArray[np.float64]) -> None:
        """Hold the VIPs over their share to it. ``verdicts`` and ``packets`` (to each backend) are per second."""
        rates, dropped = self._by_service(packets), float(verdicts[Verdict.OVER_PACKET_RATE]) if self._limits else 0.0
        received = defaultdict[Address, float](float)
        for service in self._services:
            received[service.vip] += rates[service.name]
        demands = {vip: inf if rate >= USED * self._limits.get(vip, inf) else rate for vip, rate in received.items()}
        elsewhere = min(float(verdicts[Verdict.NOT_VIP]), ELSEWHERE * capacity)
        shares = fair_shares(demands, self._weights, capacity - elsewhere)
        limits = {vip: max(share, 1.0) for vip, share in shares.items() if share < demands[vip]}
        self._hold(limits, {one.name: rates[one.name] / max(received[one.vip], 1.0) for one in self._services})
        sent = sum(received[vip] for vip in limits) + dropped
        part = min(sum(limits.values()) / sent, 1.0) if sent else 1.0
        self.admitted = dict.fromkeys(limits, Admitted(part, part))

    def _by_verdict(self) -> NDArray[np.float64]:
        packets: NDArray[np.float64] = self._tables.verdicts["packets"].sum(0).astype(float)
        return packets

    @property
    def _services(self) -> Sequence[Service]:
        return self._mux.config.services if self._mux.config else ()

    def _by_service(self, packets: NDArray[np.float64]) -> dict[str, float]:
        """Return the packets per second to the backends of each service, by its name."""
        rates = defaultdict[str, float](float)
        for (service, _), row in self._mux.rows.items():
            rates[service] += packets[row]
        return rates

    def _hold(self, limits: dict[Address, float], parts: Mapping[str, float]) -> None:
        """Hold VIPs to packets per second, and each of their services to its part; release the others."""
        released, self._limits, self.admitted = self._limits.keys() - limits.keys(), limits, {}
        for service in self._services if limits or released else ():
            if service.vip in limits:
                self._mux.hold(service, max(limits[service.vip] * parts[service.name], 1.0))
            elif service.vip in released:
                self._mux.hold(service, None)
