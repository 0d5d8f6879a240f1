"""Judges a revision on its canary, the mux that gets it first, by the counters of all muxes.  Pure.

The canary is compared with the other muxes over the same time. Drops and resets count per packet, so that muxes with
different traffic can be compared. Backends that became unhealthy count at the end only: new ones are probed first.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from lbmux.api.answers import Counters, HealthLine
from lbmux.plurals import counted

FACTOR = 2.0
"""The canary fails above this multiple of the others' drops, resets or failed backends per packet."""
LEAST_PACKETS, LEAST_BACKENDS = 20, 1
"""The least trouble that counts: packets that were dropped or reset; backends."""
RESETS = ("rejected_reset", "returned_reset")
"""Slow path counters of TCP resets."""


@dataclass(frozen=True)
class Sample:
    """A mux's counters at one moment, or what was added between two."""

    packets: int = 0
    drops: int = 0
    resets: int = 0
    unhealthy: int = 0

    def since(self, before: "Sample") -> "Sample":
        return Sample(
            self.packets - before.packets, self.drops - before.drops, self.resets - before.resets,
            self.unhealthy - before.unhealthy,
        )  # fmt: skip


def sample(counters: Counters, health: Iterable[HealthLine]) -> Sample:
    """Return the sample of a mux's answers; packets that are passed to the kernel's stack do not count."""
    sent = sum(one.packets for one in counters.verdicts if one.kind == "send")
    drops = sum(one.packets for one in counters.verdicts if one.kind == "drop")
    slow = counters.slowpath or {}
    resets = sum(slow.get(name, 0) for name in RESETS)
    return Sample(sent + drops + resets, drops, resets, sum(one.state == "down" for one in health))


def trouble(canary: Sample, others: Collection[Sample], *, is_over: bool) -> str:
    """Return why a revision must be rolled back; empty: no reason.

    The samples hold the increases during the soak. ``is_over``: it has ended, so backends count too.
    """
    packets = sum(one.packets for one in others)
    for what in ("drops", "resets"):
        count, theirs = getattr(canary, what), sum(getattr(one, what) for one in others)
        share, limit = count / max(1, canary.packets), FACTOR * theirs / max(1, packets)
        if count >= LEAST_PACKETS and share > limit:
            return (
                f"{count} {what} in {counted(canary.packets, 'packet')} ({share:.2%}), "
                f"the other muxes {theirs} in {packets}"
            )
    most = max((one.unhealthy for one in others), default=0)
    if is_over and canary.unhealthy >= LEAST_BACKENDS and canary.unhealthy > FACTOR * max(0, most):
        return f"{counted(canary.unhealthy, 'backend')} became unhealthy, at the other muxes {max(0, most)}"
    return ""
