"""Rate limits and the sketch of known sources, plainly: time as fractions of ticks, cells as a dictionary."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tests.datapath.plain_hash import WORD, halves, keyed, second_hash

BURST, STALE = 1024, 1 << 20
PRICES_A_TICK = 1 << 22


@dataclass
class Limit:
    """One limit. ``price``: the ticks that a packet takes; 0: no limit. ``full_until`` is modulo 2**32 ticks."""

    price: Fraction
    full_until: Fraction = Fraction(0)

    @classmethod
    def of(cls, price: int) -> "Limit":
        """``price`` as in a RATE row."""
        return cls(Fraction(price, PRICES_A_TICK))

    def take(self, now: int, burst: int = BURST) -> bool:
        ahead = (self.full_until - now) % (1 << 32)
        if self.price and ahead > STALE:
            self.full_until = (now + self.price) % (1 << 32)
            return True
        if ahead + self.price > burst and self.price:
            return False
        self.full_until = (self.full_until + self.price) % (1 << 32)
        return True


class KnownSources:
    """When the cells of each line were last written, in units of 1024 ticks modulo 2**15."""

    def __init__(self, keys: Sequence[int], lines: int) -> None:
        self._keys, self._lines = keys, lines
        self.cells: dict[tuple[int, int], int] = defaultdict(lambda: -1)

    def _places(self, source: bytes, index: int, protocol: int) -> list[tuple[int, int]]:
        hashed = keyed(self._keys, *halves(source), index, protocol)
        spread = second_hash(hashed)
        return [(hashed % self._lines, spread >> 5 * number & 31) for number in range(4)]

    def has(self, source: bytes, index: int, protocol: int, now: int) -> bool:
        seen = [self.cells[place] for place in self._places(source, index, protocol)]
        unit = (now & WORD) >> 10
        return all(time >= 0 and (unit - time) % (1 << 15) < 32 for time in seen)

    def enter(self, source: bytes, index: int, protocol: int, now: int) -> None:
        for place in self._places(source, index, protocol):
            self.cells[place] = (now >> 10) % (1 << 15)
