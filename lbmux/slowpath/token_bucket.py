"""Token buckets: a rate limit for the messages that we send (RFC 4443, section 2.4 f; RFC 1812, 4.3.2.8)."""

from dataclasses import dataclass, field


@dataclass
class Bucket:
    """A rate limit: ``per_s`` on average, ``burst`` at once (default: per_s / 10, at least 10). 0 allows none."""

    per_s: float
    burst: float = 0.0
    left: float = field(init=False)
    """The tokens at the time of the last ``has``; negative after a charge that was not known before."""
    _at: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.burst = self.burst or (max(10.0, self.per_s / 10) if self.per_s else 0.0)
        self.left = self.burst

    def has(self, now: float) -> bool:
        """Return whether there is a token at ``now``, in seconds of a monotonic clock."""
        self.left = min(self.burst, self.left + max(0.0, now - self._at) * self.per_s)
        self._at = max(now, self._at)
        return self.left >= 1

    def spend(self, tokens: float = 1.0) -> None:
        """Charge tokens, which may be more than there are."""
        self.left -= tokens
