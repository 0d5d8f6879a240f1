"""Rates by VIP between two snapshots of a mux's counters: which VIP uses how much of it."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from lbmux.api.answers import BlackHole, ServiceLine
from lbmux.api.counter_rates import CounterSnapshot, TrafficRates, backend_rates, total


@dataclass(frozen=True)
class VipRates:
    """A VIP's packets, bytes and new flows per second; None if they are unknown.

    ``share``: of the mux's packets; ``black_hole``: whether the mux drops all packets to it, and for how long.
    """

    vip: str
    services: list[str]
    packets: float | None
    bytes: float | None
    new_flows: float | None
    share: float | None
    black_hole: BlackHole | None = None


@dataclass(frozen=True)
class TopTalkers:
    """The VIPs of a mux, the one with the most packets per second first, measured over ``seconds``."""

    version: int
    seconds: float
    vips: list[VipRates]


def top_talkers(services: Sequence[ServiceLine], before: CounterSnapshot, after: CounterSnapshot) -> TopTalkers:
    """Sum the rates of backends by VIP. A backend that is missing from ``before`` has no rate yet."""
    rates: dict[str, list[TrafficRates]] = defaultdict(list)
    for (service, _), rate in backend_rates(before, after).items():
        rates[service].append(rate)
    by_vip: dict[str, list[str]] = defaultdict(list)
    for line in services:
        by_vip[line.vip].append(line.service)
    sums = {vip: total(rate for name in names for rate in rates[name]) for vip, names in by_vip.items()}
    packets = sum(one.packets or 0.0 for one in sums.values())
    vips = [
        VipRates(vip, by_vip[vip], one.packets, one.bytes, one.new_flows, _share(one.packets, packets))
        for vip, one in sums.items()
    ]
    vips.sort(key=lambda one: (-(one.packets or 0.0), one.vip))
    return TopTalkers(1, after.time_s - before.time_s, vips)


def _share(packets: float | None, of: float) -> float | None:
    return None if packets is None else packets / of if of else 0.0
