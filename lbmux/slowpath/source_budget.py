"""A budget that the sources of packets share fairly, by prefix, in a table of fixed size.

A token bucket bounds the whole. While it has tokens, anyone may take one. When it is empty, each prefix has a bucket of
its own, and all prefixes of the last seconds earn equal parts of the rate: a source that sends a hundred times the
budget leaves the others their parts. What they take then is a debt of the whole, no larger than its burst.

Prefixes with equal hashes share a bucket (stochastic fairness queueing, McKenney, INFOCOM 1990). Python's hash of bytes
has a random key, so an attacker cannot aim at another's bucket.
"""

import math
from collections import Counter

from lbmux.slowpath.token_bucket import Bucket

ROWS = 1024
PREFIX_BYTES = {4: 3, 16: 6}
"""A source's prefix by the bytes of its address: /24 of IPv4, /48 of IPv6."""
WINDOW_S = 1.0
"""A prefix counts as active for one to two such windows after its last packet."""
OVER_SHARE = "over_source_share"
"""The counter of refusals while sources of several prefixes shared a budget."""
US_PER_S, CPU_BURST_US = 1_000_000, 50_000


class SourceBudget:
    """``per_s`` tokens a second and ``burst`` at once, as in Bucket. Refusals are counted as ``refused``."""

    def __init__(self, per_s: float, refused: str, counts: Counter[str], burst: float = 0.0) -> None:
        self._all = Bucket(per_s, burst)
        self._refused, self._counts = refused, counts
        self._left, self._at, self._seen = [0.0] * ROWS, [-math.inf] * ROWS, [-2] * ROWS
        self._part = self._now = 0.0
        """What one active prefix has earned since the start, up to ``_now``."""
        self._window = self._active = self._active_before = 0
        """The prefixes of this window, and those of the one before that are not among them."""

    def has(self, source: bytes, now: float) -> bool:
        """Return whether a token is left for an address of 4 or 16 bytes; ``now`` is in seconds of a monotonic clock.

        All addresses of another length share one bucket.
        """
        row = self._follow(source, now)
        if self._all.has(now) or (self._left[row] >= 1 and self._all.left > -self._all.burst):
            return True
        self._counts[self._refused] += 1
        if self._is_shared():
            self._counts[OVER_SHARE] += 1
        return False

    def spend(self, source: bytes, tokens: float = 1.0) -> None:
        """Charge a source, after ``has``, with tokens, which may be more than are left."""
        if self._all.left < 1:
            self._left[_row_of(source)] -= tokens
        self._all.spend(tokens)

    def take(self, source: bytes, now: float) -> bool:
        """Like ``has``, but take the token."""
        if not self.has(source, now):
            return False
        self.spend(source)
        return True

    def _is_shared(self) -> bool:
        """Whether more than one prefix is active. One alone needs no bucket of its own."""
        return self._active + self._active_before > 1

    def _follow(self, source: bytes, now: float) -> int:
        """Give a prefix what it has earned, and return its row."""
        row, window = _row_of(source), int(now / WINDOW_S)
        if window > self._window:
            self._active_before = self._active if window == self._window + 1 else 0
            self._window, self._active = window, 0
        if self._seen[row] != self._window:
            self._active_before -= self._seen[row] == self._window - 1
            self._seen[row] = self._window
            self._active += 1
        active = self._active + self._active_before
        self._part += max(0.0, now - self._now) * self._all.per_s / active
        self._now = max(now, self._now)
        most = max(1.0, self._all.burst / active) if self._is_shared() else 0.0
        self._left[row] = min(most, self._left[row] + self._part - self._at[row])
        self._at[row] = self._part
        return row


def cpu_budget(share: float, refused: str, counts: Counter[str]) -> SourceBudget:
    """Return a budget of CPU time, a share of one core. Its tokens are microseconds; work is charged afterwards."""
    return SourceBudget(share * US_PER_S, refused, counts, CPU_BURST_US)


def prefix_of(source: bytes) -> bytes:
    """Return the bytes of an address that sources of one network have in common; none of anything else."""
    return source[: PREFIX_BYTES.get(len(source), 0)]


def _row_of(source: bytes) -> int:
    return hash(prefix_of(source)) % ROWS
