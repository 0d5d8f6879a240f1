"""The flow table as lists of objects, with the same policy: buckets of four places, three states, two buckets."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from lbmux.datapath.tables import OVERFLOWED, WAYS
from tests.datapath.plain_hash import WORD, keyed, second_hash

UNTRUSTED, TRUSTED, CLOSING = 1, 2, 3
FIN, SYN, RST, ACK = 1, 2, 4, 16
GONE = 0
LONGEST = 286102
"""The longest idle time of all owners, in ticks."""


@dataclass(frozen=True)
class Key:
    """The key of a flow; numbers are as a little-endian machine loads them."""

    low: int
    ports: int
    owner: int
    high: int = 0


@dataclass
class Flow:
    key: Key
    target: int
    generation: int
    seen: int
    state: int = UNTRUSTED


class Target(Protocol):
    state: int
    generation: int


@dataclass(frozen=True)
class Idle:
    """Ticks without a packet after which a flow is over."""

    untrusted: int = 9536
    trusted: int = 286102
    closing: int = 9536

    def over(self, flow: Flow, now: int, longest: int | None = None) -> bool:
        """``longest``: what counts instead, for a trusted flow of another owner."""
        limit = {UNTRUSTED: self.untrusted, TRUSTED: self.trusted, CLOSING: self.closing}[flow.state]
        limit = limit if longest is None else longest
        since = (now - flow.seen) & WORD
        since -= 1 << 32 if since >> 31 else 0  # another worker's clock may be ahead of ours
        return since > limit


class PlainFlows:
    def __init__(self, keys: Sequence[int], buckets: int, trusted_ways: int = WAYS - 1, untrusted_ways: int = WAYS):
        self.keys, self.trusted_ways, self.untrusted_ways = keys, trusted_ways, untrusted_ways
        self.buckets: list[list[Flow | None]] = [[None] * WAYS for _ in range(buckets)]
        self.overflowed = [False] * buckets
        self.lookups: Counter[str] = Counter()
        self.longest_idle = LONGEST

    def _places(self, key: Key, destination: int) -> tuple[int, int, int]:
        """The flow's hash, its bucket and its second bucket."""
        hashed = keyed(self.keys, key.high, key.low, key.ports, destination)
        return hashed, hashed % len(self.buckets), second_hash(hashed) % len(self.buckets)

    def find(self, key: Key, destination: int) -> tuple[int, int] | None:
        """(bucket, way)"""
        _, first, second = self._places(key, destination)
        for number in (first, second) if self.overflowed[first] else (first,):
            for way, flow in enumerate(self.buckets[number]):
                if flow and flow.key == key:
                    return number, way
        return None

    def flow(self, place: tuple[int, int]) -> Flow:
        flow = self.buckets[place[0]][place[1]]
        assert flow
        return flow

    def forget(self, place: tuple[int, int], why: str | None = None) -> None:
        self.buckets[place[0]][place[1]] = None
        if why:
            self.lookups[why] += 1

    def use(self, place: tuple[int, int], destination: int, target: Target, idle: Idle, flags: int, now: int) -> bool:
        """Whether the flow found there is still good; if so it is refreshed, if not it is forgotten."""
        flow = self.flow(place)
        if target.state == GONE or target.generation != flow.generation:
            self.forget(place, "gone")
            return False
        if idle.over(flow, now) or (flags & SYN and flow.state == CLOSING):
            self.forget(place, "expired")
            return False
        flow.seen = now
        if flags & (FIN | RST):
            flow.state = CLOSING
        elif flow.state == UNTRUSTED:
            if self._trusted(place[0]) < self.trusted_ways:
                flow.state = TRUSTED
            else:
                self._move(place, destination, idle, now)
        self.lookups["hit"] += 1
        return True

    def refresh(self, place: tuple[int, int], target: Target, idle: Idle, now: int) -> bool:
        """Whether the flow found there is still good, for a packet of the other direction: that only keeps it alive."""
        if not self.is_alive(place, target, idle, now):
            return False
        self.flow(place).seen = now
        self.lookups["hit"] += 1
        return True

    def is_alive(self, place: tuple[int, int], target: Target, idle: Idle, now: int) -> bool:
        flow = self.flow(place)
        return target.state != GONE and target.generation == flow.generation and not idle.over(flow, now)

    def _move(self, place: tuple[int, int], destination: int, idle: Idle, now: int) -> None:
        """Move the flow to a trusted place in its second bucket, if there is one."""
        flow = self.flow(place)
        hashed, first, second = self._places(flow.key, destination)
        if self._trusted(second) >= self.trusted_ways:
            return
        free_place = self._place(second, second_hash(hashed), flow.key.owner, idle, now)
        if free_place:
            flow.state = TRUSTED
            self.overflowed[first] = True
            self.buckets[place[0]][place[1]] = None
            self.buckets[second][free_place[0]] = flow

    def _trusted(self, number: int) -> int:
        return sum(1 for flow in self.buckets[number] if flow and flow.state == TRUSTED)

    def _place(self, number: int, hashed: int, owner: int, idle: Idle, now: int) -> tuple[int, bool] | None:
        """(way, whether a live flow must go) or None."""
        free, victims = [], []
        first, chance = (hashed >> 31) * 2, (hashed >> 20) ^ now
        for way in (first, first + 1, (first + 2) % WAYS, (first + 3) % WAYS):
            flow = self.buckets[number][way]
            foreign = flow is not None and flow.state == TRUSTED and flow.key.owner != owner
            if flow is None or idle.over(flow, now, self.longest_idle if foreign else None):
                free.append(way)
            elif flow.state != TRUSTED:
                victims.append(way)
        if free and (len(victims) < self.untrusted_ways or not victims):
            return free[0], False
        return (max(victims, key=lambda way: (way + chance) % WAYS), True) if victims else None

    def remember(self, key: Key, destination: int, target: int, generation: int, idle: Idle, now: int) -> None:
        hashed, number, second = self._places(key, destination)
        known = self.find(key, destination)
        if known:
            self.lookups["hit"] += 1
            return
        place = self._place(number, hashed, key.owner, idle, now)
        if place is None or (place[1] and self._trusted(number) >= self.trusted_ways):
            self.overflowed[number] = True
            number = second
            place = self._place(number, second_hash(hashed), key.owner, idle, now)
        if place is None:
            self.lookups["full"] += 1
            return
        self.lookups["evicted" if place[1] else "new"] += 1
        self.buckets[number][place[0]] = Flow(key, target, generation, now)

    def differences(self, rows: Any) -> list[str]:
        """Return the differences between these flows and the table's FLOW rows."""
        differing = []
        names = ("high", "low", "ports", "owner", "target", "generation", "seen", "state")
        for number, bucket in enumerate(self.buckets):
            if bool(int(rows[number, 0]["version"]) << 48 & OVERFLOWED) != self.overflowed[number]:
                differing.append(f"bucket {number}: overflowed")
            for way, flow in enumerate(bucket):
                row = {name: int(rows[number, way][name]) for name in names}
                if not (row == _row(flow) if flow else row["state"] == 0):
                    differing.append(f"{number}.{way}: {flow} against {row}")
        return differing


def _row(flow: Flow) -> dict[str, int]:
    return asdict(flow.key) | {
        "target": flow.target, "generation": flow.generation, "seen": flow.seen, "state": flow.state
    }  # fmt: skip
