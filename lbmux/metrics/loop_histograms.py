"""Histograms of a packet loop: frames per batch, and the time that each step takes.

Counting a batch costs two additions; the clock is read only in one of SAMPLE batches.
"""

from collections.abc import Sequence

SAMPLE = 1024
"""One of this many batches is timed; a power of two."""
STEPS = ("forward", "send")
SIZE_BITS = 9
"""Batches have up to 256 frames."""
COST_BITS = range(4, 21)
"""Buckets from 16 ns to one millisecond per frame."""


class LoopHistograms:
    """Counts values by powers of two: index ``n`` counts values with ``n`` binary digits."""

    def __init__(self) -> None:
        self.batches, self.frames = 0, 0
        self.sizes = [0] * (SIZE_BITS + 1)
        self.costs = {step: [0] * (COST_BITS[-1] + 2) for step in STEPS}
        self.cost_ns = dict.fromkeys(STEPS, 0)
        """The sums of the values in ``costs``, in nanoseconds per frame."""

    def batch(self, frames: int) -> None:
        self.batches += 1
        self.frames += frames
        self.sizes[frames.bit_length()] += 1

    @property
    def is_timed(self) -> bool:
        """Whether to time the batch that was counted last: the first one, then one of SAMPLE."""
        return self.batches & (SAMPLE - 1) == 1

    def took(self, step: str, frames: int, nanoseconds: int) -> None:
        cost = nanoseconds // max(frames, 1)
        self.costs[step][min(max(cost.bit_length(), COST_BITS[0]), COST_BITS[-1] + 1)] += 1
        self.cost_ns[step] += cost


def cumulative(counts: Sequence[int], bits: range, unit: float = 1) -> list[tuple[str, float]]:
    """Return cumulative buckets of a Prometheus histogram, one for each number of ``bits``, with bounds in ``unit``."""
    buckets, total = [], sum(counts[: bits[0]])
    for bit in bits:
        total += counts[bit]
        buckets.append((f"{((1 << bit) - 1) * unit:.6g}", float(total)))
    return [*buckets, ("+Inf", float(sum(counts)))]
