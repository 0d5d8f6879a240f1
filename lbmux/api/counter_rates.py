"""Rates per second between two snapshots of a daemon's counters, for `top` and `web`.

A backend that is missing from the earlier snapshot has no rate yet, since its counters may be older than the snapshot.
A counter that went back was reset with new tables and counts from 0.  The rate of a service is the sum of its backends'
rates, so a backend that leaves the tables does not change what the others contribute.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from lbmux.api.answers import BackendLine, Key, VerdictLine


@dataclass(frozen=True)
class CounterSnapshot:
    """One daemon's counters at ``time_s``, in seconds of any one clock."""

    time_s: float
    backends: Sequence[BackendLine]
    verdicts: Sequence[VerdictLine]


@dataclass(frozen=True)
class TrafficRates:
    """Per second; None if it is unknown or not counted: an agent does not count traffic by backend."""

    packets: float | None
    bytes: float | None
    new_flows: float | None


UNKNOWN_RATES, NO_TRAFFIC = TrafficRates(None, None, None), TrafficRates(0.0, 0.0, 0.0)
NAMES = tuple(field.name for field in fields(TrafficRates))


def backend_rates(before: CounterSnapshot, after: CounterSnapshot) -> dict[Key, TrafficRates]:
    """Return the rates of every backend in ``after``; 0 if no time has passed."""
    earlier = {line.key: line for line in before.backends}
    seconds = after.time_s - before.time_s
    return {line.key: _rates(earlier.get(line.key), line, seconds) for line in after.backends}


def total(rates: Iterable[TrafficRates]) -> TrafficRates:
    """Return the sum of the known rates, each None if none of them is known."""
    every = list(rates)
    known = {name: [rate for one in every if (rate := getattr(one, name)) is not None] for name in NAMES}
    return TrafficRates(**{name: sum(each) if each else None for name, each in known.items()})


def drop_rates(before: CounterSnapshot, after: CounterSnapshot) -> dict[str, float]:
    """Return packets dropped per second by verdict, without those that did not increase."""
    earlier: Mapping[str, int] = {line.verdict: line.packets for line in before.verdicts}
    seconds = after.time_s - before.time_s
    drops = {line.verdict: line.packets for line in after.verdicts if line.kind == "drop"}
    per_s = {name: _per_s(earlier[name], packets, seconds) for name, packets in drops.items() if name in earlier}
    return {name: rate for name, rate in per_s.items() if rate}


def _rates(before: BackendLine | None, after: BackendLine, seconds: float) -> TrafficRates:
    if before is None:
        return UNKNOWN_RATES
    return TrafficRates(
        packets=_per_s(before.packets, after.packets, seconds),
        bytes=_per_s(before.bytes, after.bytes, seconds),
        new_flows=_per_s(before.new_flows, after.new_flows, seconds),
    )


def _per_s(before: int | None, after: int | None, seconds: float) -> float | None:
    if before is None or after is None:
        return None
    increase = after - before if after >= before else after
    return increase / seconds if seconds > 0 else 0.0
