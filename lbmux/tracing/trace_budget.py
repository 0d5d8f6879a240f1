"""Limits examined frames: reading headers in plain Python is slow, so only a number of them per second is read."""

FRAMES_A_SECOND = 500
"""Most frames per second that are examined, on the event loop that forwards."""


class Budget:
    """Limits frames to ``a_second`` per second, in bursts of as many at most; ``skipped`` counts the others."""

    def __init__(self, a_second: int, now: float) -> None:
        self._a_second, self._left, self._at = a_second, float(a_second), now
        self.skipped = 0

    @property
    def is_spent(self) -> bool:
        return self._left < 1

    def take(self, wanted: int, now: float) -> int:
        """Return how many of the ``wanted`` frames may be examined at ``now`` (seconds), and count the others."""
        self._left = min(self._a_second, self._left + (now - self._at) * self._a_second)
        self._at = now
        taken = min(wanted, int(self._left))
        self._left -= taken
        self.skipped += wanted - taken
        return taken
