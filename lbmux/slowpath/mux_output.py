"""The output of a mux's slow path: answers and tunnelled packets, each counted and rate-limited."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from lbmux.slowpath.second_chance import SearchStage
from lbmux.slowpath.slow_path_flow import Forwarder
from lbmux.slowpath.source_budget import SourceBudget
from lbmux.wire.packet import Packet, reversed_link

BY_ROUTE = -1


class Sent(NamedTuple):
    """A frame to send by an interface (0: the receiving one), or a packet for the kernel to route (BY_ROUTE)."""

    interface: int
    data: bytes


@dataclass
class MuxOutput:
    """Builds and counts the packets to send. ``messages`` is the rate limit of ICMP messages."""

    forwarder: Forwarder
    counts: Counter[str]
    messages: SourceBudget

    def answer(
        self, packet: Packet, answer: bytes | None, what: str, now: float, rejects: SourceBudget | None = None
    ) -> list[Sent]:
        """Send our own answer to ``packet`` through the link on which that arrived.

        ``answer``: an IP packet, or None if none is allowed; ``what``: its counter; ``rejects``: the rate limit that
        replaces that of ICMP messages.
        """
        if answer is None:
            return self.drop(f"{what}_not_allowed")
        if not (rejects or self.messages).take(packet.source.packed, now):
            return []
        self.counts[what] += 1
        return [Sent(0, reversed_link(packet.link) + answer)]

    def tunnel(self, packet: Packet, backend: int, stage: int = SearchStage.FIRST) -> list[Sent]:
        """Send a packet to a backend's host; ``stage`` is the TTL of the outer packet."""
        frames = self.forwarder.tunnel(packet.data, backend, stage)
        if not frames:
            return self.drop("not_tunnelled")
        return [Sent(interface, frame) for interface, frame in frames]

    def drop(self, why: str) -> list[Sent]:
        """Send nothing, and count it as ``why``."""
        self.counts[why] += 1
        return []
