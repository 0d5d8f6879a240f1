"""The delay lines of lbmux.frames.delay_lines, as plainly as can be: a list for each direction."""

from collections.abc import Mapping

from lbmux.frames.delay_lines import MACS, Path

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


class PlainLines:
    """Frames by direction, each with the time when it is due."""

    def __init__(self, sites: int, paths: Mapping[tuple[int, int], Path], queue: int, seed: int) -> None:
        self.sites, self.paths, self.queue = sites, paths, queue
        self.waiting: dict[tuple[int, int], list[tuple[int, bytes]]] = {ends: [] for ends in paths}
        self.states = {(a, b): ((a * sites + b) * GOLDEN + seed) & MASK for a in range(sites) for b in range(sites)}
        self.places: dict[int, tuple[bytes, int]] = {}
        self.lost = self.overflowed = 0

    def random(self, ends: tuple[int, int]) -> int:
        self.states[ends] = mixed = (self.states[ends] + GOLDEN) & MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        return (mixed ^ (mixed >> 31)) >> 1

    def enter(self, frame: bytes, arrived: int, site: int) -> None:
        destination, source = frame[:6], frame[6:12]
        self.places[self.place(source)] = source, site
        known, where = self.places.get(self.place(destination), (b"", 0))
        is_known = known == destination and not destination[0] & 1
        for target in range(self.sites):
            ends = (site, target)
            if ends not in self.paths or (is_known and where != target):
                continue
            path, line = self.paths[ends], self.waiting[ends]
            if self.random(ends) < min(round(path.loss * 2**63), 2**63):
                self.lost += 1
            elif len(line) == self.queue:
                self.overflowed += 1
            else:
                delay, jitter = round(path.delay_ms * 1e6), round(path.jitter_ms * 1e6)
                wait = max(0, delay - jitter + self.random(ends) % (2 * jitter + 1)) if jitter else delay
                line.append((max([arrived + wait, *(due for due, _ in line[-1:])]), frame))

    @staticmethod
    def place(mac: bytes) -> int:
        return ((int.from_bytes(mac, "little") * GOLDEN) & MASK) >> (65 - MACS.bit_length())

    def leave(self, now: int) -> list[tuple[int, bytes]]:
        """Target and frame of all that are due."""
        frames = []
        for ends, line in sorted(self.waiting.items()):
            while line and line[0][0] <= now:
                frames.append((ends[1], line.pop(0)[1]))
        return frames
