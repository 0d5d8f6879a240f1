"""Token buckets: a rate limit for the messages that we send (RFC 4443, section 2.4 f; RFC 1812, 4.3.2.8), and a CPU
time budget."""

from dataclasses import dataclass, field


@dataclass
class Bucket:
    """A rate limit: ``per_s`` on average, ``burst`` at once (default: per_s / 10, at least 10). 0 allows none."""

    per_s: float
    burst: float = 0.0
    refused: int = 0
    _tokens: float = field(init=False)
    _at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.burst = self.burst or (max(10.0, self.per_s / 10) if self.per_s else 0.0)
        self._tokens = self.burst

    def has(self, now: float) -> bool:
        """Return whether one more is allowed at ``now``, in seconds of a monotonic clock."""
        self._tokens = min(self.burst, self._tokens + max(0.0, now - self._at) * self.per_s)
        self._at = max(now, self._at)
        return self._tokens >= 1

    def take(self, now: float) -> bool:
        """Like ``has``, but take a token."""
        if not self.has(now):
            self.refused += 1
            return False
        self._tokens -= 1
        return True


@dataclass
class CpuBudget:
    """A CPU budget: a ``share`` of one core on average, and ``burst_s`` of CPU time at once."""

    share: float
    burst_s: float = 0.05
    _left_s: float = field(init=False)
    _at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._left_s = self.burst_s

    def is_left(self, now: float) -> bool:
        """Return whether more work may begin at ``now``, in seconds of a monotonic clock."""
        self._left_s = min(self.burst_s, self._left_s + max(0.0, now - self._at) * self.share)
        self._at = max(now, self._at)
        return self._left_s > 0

    def spend(self, seconds: float) -> None:
        """Charge the CPU time that the work took."""
        self._left_s -= seconds
