"""What the log tells of BGP sessions: each change once, and why a session is not up.  Pure."""

import logging
from collections.abc import Iterable, Iterator

from lbmux.bgp.bgp_settings import Neighbour

PATIENCE_S = 5.0
"""A session that is not up after this time is told of, if nobody has given a reason before."""


class SessionLog:
    """Compares the sessions with what was told of them."""

    def __init__(self, speaker: str) -> None:
        self._speaker = speaker
        self._told: dict[str, tuple[bool, str]] = {}
        self._down_since: dict[str, float] = {}

    def changes(self, sessions: Iterable[Neighbour], now: float) -> Iterator[tuple[int, str]]:
        """Levels and lines for the log."""
        for one in sessions:
            said = one.is_up, one.reason
            if one.is_up:
                self._down_since.pop(one.address, None)
            else:
                since = self._down_since.setdefault(one.address, now)
                if not one.reason and now - since < PATIENCE_S:  # it may only have begun
                    continue
            if self._told.get(one.address) != said:
                self._told[one.address] = said
                yield self._line(one)

    def _line(self, one: Neighbour) -> tuple[int, str]:
        session = f"BGP session with {one.address} (AS {one.number})"
        if one.is_up:
            return logging.INFO, f"{session} is established"
        why = one.reason or f"{self._speaker} gives no reason; does the router have us as its neighbour?"
        return logging.WARNING, f"{session} is not established ({one.state}): {why}"
