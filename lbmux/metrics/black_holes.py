"""Decides which VIP of an overloaded mux becomes a black hole, and when it comes back.  Pure.

Fair shares keep a flooded VIP from harming others, but the mux still looks at each packet.  If it gets more than its
capacity, on average over ``after_s``, all packets of the VIP that stands out are dropped first, unless they look like
those of many real clients.  The VIP is on parole afterwards: each relapse doubles the time.

If the mux still loses packets then, most of which are the VIP's, its packets have to be dropped upstream, by routers.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from lbmux.addresses import Address
from lbmux.config.overload_models import BlackHole
from lbmux.metrics.fair_shares import fair_shares

STANDS_OUT = 3.0
"""A VIP stands out if it gets this many times its fair share, and this many times what any other gets by weight."""
FEW_SOURCES = 8
"""Packets from fewer source addresses than this are not a crowd's."""
GO_ON = 0.2
"""The least share of a crowd's new connections that go on, and of its other packets that follow an earlier one of their
flow.  Of real clients that are not dropped nearly all do."""
LEAST_JUDGED, LEAST_BEGUN = 10, 5
"""With fewer packets, or new connections, than this to judge by, they are taken for a crowd's."""
QUIET_S = 0.5
"""A black hole ends early once its VIP gets no more than its fair share on average over this time; each relapse doubles
it."""
MOST_DOUBLED = 8
UPSTREAM_S = 2.0
"""Time that a black hole gets to help, before routers have to."""
FORGIVEN_S = 300.0
"""A black hole within this time after the VIP's last one, or within that one's length, is a relapse."""


@dataclass(frozen=True)
class Usage:
    """What came for a VIP in a time: ``begins``, the packets that begin a TCP connection, and ``others``.

    ``judged``: how many of the others were looked at; ``follows``: those of them that follow an earlier packet of their
    flow; ``begun``: how many new connections were looked at that were not dropped; ``completed``: those of them that
    went on; ``sources``: about how many source addresses there were.
    """

    begins: float = 0.0
    others: float = 0.0
    judged: float = 0.0
    follows: float = 0.0
    begun: float = 0.0
    completed: float = 0.0
    sources: float = 0.0

    @property
    def packets(self) -> float:
        return self.begins + self.others

    def __add__(self, more: "Usage") -> "Usage":
        """Add another time, which may have the same sources: the larger number counts."""
        return Usage(
            self.begins + more.begins, self.others + more.others, self.judged + more.judged,
            self.follows + more.follows, self.begun + more.begun, self.completed + more.completed,
            max(self.sources, more.sources),
        )  # fmt: skip

    @property
    def begins_most(self) -> bool:
        """Whether most packets begin a connection, so that connections are judged and not other packets."""
        return self.begins > self.others

    @property
    def goes_on(self) -> float:
        """The share of new connections that go on, or of other packets that follow earlier ones; 1 if it is unknown."""
        if self.begins_most:
            return self.completed / self.begun if self.begun >= LEAST_BEGUN else 1.0
        return self.follows / self.judged if self.judged >= LEAST_JUDGED else 1.0

    @property
    def is_flood(self) -> bool:
        return self.sources < FEW_SOURCES or self.goes_on < GO_ON


NOTHING = Usage()


@dataclass
class Parole:
    """A VIP's last black hole in monotonic seconds; ``ended`` is None while it is in force.

    ``is_upstream``: routers drop the packets, so that the mux does not see whether the flood goes on.
    """

    since: float
    until: float
    relapses: int
    ended: float | None = None
    is_upstream: bool = False


@dataclass(frozen=True)
class Change:
    """A black hole that begins or ends, and why; ``upstream_s``: it is extended to routers, for this time."""

    vip: Address
    begins: bool
    reason: str
    upstream_s: float | None = None


class BlackHoles:
    """``times``: how many have begun."""

    def __init__(self) -> None:
        self.times = 0
        self._rules, self._capacity = BlackHole(), 0
        self._weights: Mapping[Address, int] = {}
        self._windows = deque[tuple[float, Mapping[Address, Usage]]]()
        self._paroles = dict[Address, Parole]()

    @property
    def in_force(self) -> dict[Address, Parole]:
        return {vip: one for vip, one in self._paroles.items() if one.ended is None}

    def configure(self, rules: BlackHole, capacity_pps: int | None, weights: Mapping[Address, int]) -> None:
        """Take a configuration; VIPs that it no longer has are forgotten."""
        self._rules, self._capacity, self._weights = rules, capacity_pps or 0, weights
        on = rules.enabled and capacity_pps is not None
        self._paroles = {vip: one for vip, one in self._paroles.items() if on and vip in weights}

    def read(self, now: float, seconds: float, usage: Mapping[Address, Usage], loses: bool = False) -> list[Change]:
        """Take what came in the last ``seconds``; return what changes at ``now`` (monotonic seconds).

        ``loses``: whether the mux loses packets that it does not want to lose.
        """
        self._windows.append((seconds, usage))
        while sum(one for one, _ in self._windows) - self._windows[0][0] >= self._longest_s():
            self._windows.popleft()
        changes = [change for vip in self.in_force if (change := self._end(vip, now))]
        if not changes and self._rules.enabled:
            changes = self._begin(now)
        if not changes and self._rules.upstream != "none" and loses:
            changes = self._extend(now)
        if changes:
            self.start_again()
        return changes

    def start_again(self) -> None:
        """Forget what came: there is a gap before what is read next."""
        self._windows.clear()

    def release(self, vip: Address, now: float) -> bool:
        """End a VIP's black hole by command and forget its relapses; return whether there was one."""
        self.start_again()
        parole = self._paroles.pop(vip, None)
        return parole is not None and parole.ended is None

    def _longest_s(self) -> float:
        return max([self._rules.after_s, *(_quiet_s(one) for one in self.in_force.values())])

    def _since(self, seconds: float) -> tuple[float, dict[Address, Usage]]:
        """Return the whole windows of the last ``seconds``, or what there is: their time and what came per VIP."""
        time, sums = 0.0, dict.fromkeys(self._weights, NOTHING)
        for length, usage in reversed(self._windows):
            if time >= seconds:
                break
            time += length
            for vip in usage.keys() & sums.keys():
                sums[vip] += usage[vip]
        return time, sums

    def _begin(self, now: float) -> list[Change]:
        """Make the VIP that stands out a black hole, if the mux gets too much and another VIP remains."""
        time, sums = self._since(self._rules.after_s)
        rates = {vip: sums[vip].packets / time for vip in sums.keys() - self.in_force.keys()}
        if time < self._rules.after_s or len(rates) < 2 or sum(rates.values()) <= self._capacity:
            return []
        first, second = sorted(rates, key=lambda vip: rates[vip] / self._weights[vip], reverse=True)[:2]
        rate, share = rates[first], fair_shares(rates, self._weights, self._capacity)[first]
        others = rates[second] / self._weights[second] * self._weights[first]
        if rate < STANDS_OUT * max(share, others) or not sums[first].is_flood:
            return []
        last = self._paroles.get(first)
        relapses = 0
        if last is not None and last.ended is not None and now - last.ended < max(FORGIVEN_S, last.until - last.since):
            relapses = last.relapses + 1
        for_s = min(self._rules.first_s * 2.0 ** min(relapses, 64), self._rules.longest_s)
        self._paroles[first], self.times = Parole(now, now + for_s, relapses), self.times + 1
        what = f"{rate:.0f} packets per second, {share:.0f} are its share; {_seen(sums[first])}"
        return [Change(first, True, f"{what}; for {for_s:.0f} s at most")]

    def _extend(self, now: float) -> list[Change]:
        """Have routers drop the packets of a black hole that did not help, if most packets are its VIP's."""
        time, sums = self._since(self._rules.after_s)
        rates = {vip: usage.packets / time for vip, usage in sums.items()}
        for vip, parole in self.in_force.items():
            if not parole.is_upstream and now - parole.since >= UPSTREAM_S and rates[vip] > sum(rates.values()) / 2:
                parole.is_upstream = True
                parole.until += now - parole.since
                reason = f"the mux still loses packets, {rates[vip]:.0f} per second are its"
                return [Change(vip, True, reason, parole.until - now)]
        return []

    def _end(self, vip: Address, now: float) -> Change | None:
        """End a black hole whose time is over, or whose flood is."""
        parole = self._paroles[vip]
        reason = "on parole" if now >= parole.until else ""
        if not reason:
            if parole.is_upstream:
                return None
            quiet_s = _quiet_s(parole)
            time, sums = self._since(quiet_s)
            rates = {one: usage.packets / time for one, usage in sums.items()}
            share = fair_shares({**rates, vip: inf}, self._weights, self._capacity)[vip]
            if now - parole.since < quiet_s or time < quiet_s or rates[vip] > share:
                return None
            reason = "the flood is over"
        parole.ended = now
        return Change(vip, False, f"{reason}, after {now - parole.since:.1f} s")


def _quiet_s(parole: Parole) -> float:
    return QUIET_S * 2.0 ** min(parole.relapses, MOST_DOUBLED)


def _seen(usage: Usage) -> str:
    if usage.sources < FEW_SOURCES:
        return f"fewer than {FEW_SOURCES} sources"
    if usage.begins_most:
        return f"{usage.goes_on:.0%} of its new connections go on"
    return f"{usage.goes_on:.0%} of the packets follow an earlier one of their flow"
