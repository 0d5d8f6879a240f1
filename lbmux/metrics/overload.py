"""Decides from a mux's counters whether it gets more packets than it can forward."""

from dataclasses import dataclass

MOST_DROPS = 10
"""Dropped frames between two readings that do not count: interfaces also drop what no protocol wants."""
LAG_S = 0.08
"""The packet loop is late by this much while its ring has frames."""
SOFTIRQ_SHARE, SOFTIRQ_S = 0.9, 0.09
"""A CPU's share of time in softirqs, over at least this time: the kernel counts it in ticks of 10 ms."""
OVER_S = 1.0
"""An overload ends after this time without a sign of it."""


@dataclass(frozen=True)
class Counters:
    """Counters at one time, all growing.  ``lag_s``: how late the loop is now, 0 if its ring is empty."""

    packets: int = 0
    interface_drops: int = 0
    ring_drops: int = 0
    softirq_s: tuple[float, ...] = ()
    lag_s: float = 0.0


class Overload:
    """``reason``: why the mux is overloaded, or was last; ``times``: how often it has become so."""

    def __init__(self) -> None:
        self.capacity_pps: int | None = None
        self.reason, self.times = "", 0
        self.since: float | None = None
        """The monotonic time since when it is overloaded; None if it is not."""
        self._last_sign = 0.0
        self._last_loss = -OVER_S
        self._before: tuple[float, Counters] | None = None
        self._softirq: tuple[float, tuple[float, ...]] = (0.0, ())

    def loses(self, now: float) -> bool:
        """Return whether the mux loses packets, or soon does, whatever ``capacity_pps`` is."""
        return now - self._last_loss < OVER_S

    def read(self, now: float, counters: Counters) -> bool:
        """Take a reading at a monotonic time; return whether the state has changed."""
        reason = self._sign(now, counters)
        self._before = (now, counters)
        if reason:
            self._last_sign = now
            if self.since is None:
                self.since, self.reason, self.times = now, reason, self.times + 1
                return True
        elif self.since is not None and now - self._last_sign >= OVER_S:
            self.since = None
            return True
        return False

    def _sign(self, now: float, counters: Counters) -> str:
        """Return a sign of overload since the reading before, or an empty string."""
        softirq = self._busiest(now, counters.softirq_s)
        if self._before is None:
            return ""
        then, before = self._before
        seconds = max(now - then, 1e-6)
        ring, interface = counters.ring_drops - before.ring_drops, counters.interface_drops - before.interface_drops
        rate, loss = (counters.packets - before.packets) / seconds, ""
        if ring > MOST_DROPS:
            loss = f"{ring} frames dropped at the ring in {1000 * seconds:.0f} ms"
        elif interface > MOST_DROPS:
            loss = f"{interface} frames dropped at the interface in {1000 * seconds:.0f} ms"
        elif counters.lag_s > LAG_S:
            loss = f"the packet loop is {1000 * counters.lag_s:.0f} ms late"
        elif softirq >= SOFTIRQ_SHARE:
            loss = f"a CPU spends {100 * softirq:.0f} % of its time in softirqs"
        if loss:
            self._last_loss = now
        if not loss and self.capacity_pps is not None and rate > self.capacity_pps:
            return f"{rate:.0f} packets per second exceed capacity_pps ({self.capacity_pps})"
        return loss

    def _busiest(self, now: float, softirq_s: tuple[float, ...]) -> float:
        """Return the largest share of a CPU's time in softirqs, or 0 until enough time has passed."""
        then, before = self._softirq
        if len(before) != len(softirq_s):
            self._softirq = (now, softirq_s)
            return 0.0
        if now - then < SOFTIRQ_S:
            return 0.0
        self._softirq = (now, softirq_s)
        return max((new - old for new, old in zip(softirq_s, before, strict=True)), default=0.0) / (now - then)
