"""What a packet loop says of itself: how many frames its batches have, and what the steps cost in some of them.

A batch costs two additions; the clock is read in one of SAMPLE only.
"""

from collections.abc import Sequence

SAMPLE = 1024
"""One batch of so many is timed; a power of two."""
STEPS = ("forward", "send")
SIZE_BITS = 9
"""Batches have up to 256 frames."""
COST_BITS = range(4, 21)
"""Costs from below 16 ns a frame to a millisecond and more."""


class LoopHistograms:
    """Counts by powers of two: at ``n``, what has ``n`` bits in binary."""

    def __init__(self) -> None:
        self.batches, self.frames = 0, 0
        self.sizes = [0] * (SIZE_BITS + 1)
        self.costs = {step: [0] * (COST_BITS[-1] + 2) for step in STEPS}
        self.cost_ns = dict.fromkeys(STEPS, 0)
        """The sum of all that ``costs`` counts, each in ns a frame."""

    def batch(self, frames: int) -> None:
        self.batches += 1
        self.frames += frames
        self.sizes[frames.bit_length()] += 1

    @property
    def is_timed(self) -> bool:
        """Whether the batch that was counted last is to be timed: the first, and then one of SAMPLE."""
        return self.batches & (SAMPLE - 1) == 1

    def took(self, step: str, frames: int, nanoseconds: int) -> None:
        cost = nanoseconds // max(frames, 1)
        self.costs[step][min(max(cost.bit_length(), COST_BITS[0]), COST_BITS[-1] + 1)] += 1
        self.cost_ns[step] += cost


def cumulative(counts: Sequence[int], bits: range, unit: float = 1) -> list[tuple[str, float]]:
    """Buckets of a Prometheus histogram: what has at most so many ``bits``, its bound in ``unit``; +Inf at the end."""
    found, total = [], sum(counts[: bits[0]])
    for bit in bits:
        total += counts[bit]
        found.append((f"{((1 << bit) - 1) * unit:.6g}", float(total)))
    return [*found, ("+Inf", float(sum(counts)))]
